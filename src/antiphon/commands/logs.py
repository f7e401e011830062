"""Where a server's logs go: messages to stderr, the access log to stdout, each from a thread of its own (`log_writer`).

On a terminal each line erases the progress bar that may be there, which is drawn again below it. Elsewhere messages
have a time and a level, and the access log is JSON unless text is asked for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from rich.console import Console

from antiphon.commands.terminal_log import ERASE_LINE, set_up_messages
from antiphon.config import ServerConfig
from antiphon.http.edge.access_log import TextFormatter, access_log_writer, access_logger
from antiphon.log_writer import LineWriter


def set_up_logging(settings: ServerConfig, console: Console) -> None:
    """Send a server's messages to stderr, which `console` writes to, and its access log to stdout."""
    set_up_messages(settings.log_level, console)
    # It warns of every request for a WebSocket, or that is not HTTP. Its sender gets an error; the log would fill up.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    access_logger.propagate = False
    _set_up_access_log(settings.access_log)


def dropped_lines() -> Mapping[str, int]:
    """How many lines of each log this process has dropped: `access` and `messages`."""
    logs = {"access": access_logger, "messages": logging.getLogger()}
    return {name: sum(map(_dropped_by, logger.handlers)) for name, logger in logs.items()}


def _dropped_by(handler: logging.Handler) -> int:
    return handler.total_dropped if isinstance(handler, LineWriter) else 0


def change_logging(before: ServerConfig, after: ServerConfig) -> None:
    """Apply the settings of a server that has set up its logs before."""
    logging.getLogger().setLevel(after.log_level.upper())
    if before.access_log != after.access_log:
        _set_up_access_log(after.access_log)


def _set_up_access_log(kind: str) -> None:
    """Replace the handler of the access log, if there is one; the new one continues its count of dropped lines."""
    access_logger.setLevel(logging.WARNING if kind == "off" else logging.INFO)
    if kind == "off":
        return  # a handler of before stays, with its count
    on_terminal = sys.stdout.isatty()
    as_text = kind == "text" or (kind == "auto" and on_terminal)
    text = TextFormatter(before=ERASE_LINE if on_terminal else "") if as_text else None
    writer = access_log_writer(text, already_dropped=dropped_lines()["access"])
    for handler in list(access_logger.handlers):
        access_logger.removeHandler(handler)
        handler.close()
    access_logger.addHandler(writer)

"""Where log messages go: to stderr, in colours on a terminal, else with a time and a level."""

from __future__ import annotations

import io
import logging

from rich.console import Console
from rich.logging import RichHandler

from antiphon.log_writer import STDERR, LineWriter
from antiphon.terminal import console_on

_PLAIN = "%(asctime)s %(levelname)s %(message)s"
ERASE_LINE = "\r\x1b[2K"  # a progress bar may be there, which is drawn again below


class TerminalFormatter(logging.Formatter):
    """A record as text with colours; it is rendered apart, since rich's own handler waits for the terminal."""

    def __init__(self, terminal: Console) -> None:
        """`terminal`: the console whose width and colours to use; nothing is written to it."""
        super().__init__("%(message)s")
        self._console = console_on(
            stderr=False, file=io.StringIO(), force_terminal=True, width=terminal.width, no_color=terminal.no_color
        )
        self._handler = RichHandler(console=self._console, show_path=False, rich_tracebacks=False)

    def format(self, record: logging.LogRecord) -> str:
        with self._console.capture() as captured:
            self._handler.emit(record)
        return ERASE_LINE + captured.get().rstrip("\n")


def set_up_messages(level: str, console: Console) -> None:
    """Send this process's messages to stderr, which `console` writes to."""
    messages = LineWriter(STDERR)
    messages.setFormatter(TerminalFormatter(console) if console.is_terminal else logging.Formatter(_PLAIN))
    logging.basicConfig(level=level.upper(), handlers=[messages])

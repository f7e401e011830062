"""The access log: one line for each request, written when it ends. JSON for programs, or short text for a terminal.

Owns the line's fields and format. A line contains no prompt, answer, query string or key, only the name of a key. If a
client leaves a stream, the line is written as soon as that is noticed. The line of a request that is answered in the
background is written when the answer ends, even if its client has left. `log_writer` ensures that a slow reader of the
log blocks nothing. The metrics' `RequestAccount` knows how a request ended.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.http.edge.authentication import key_name
from antiphon.http.edge.response_counts import GONE
from antiphon.http.edge.tracing import trace_of
from antiphon.log_writer import STDOUT, LineWriter
from antiphon.metrics import RequestAccount

_WORST_FIRST = ("failed", "aborted", "refused", "finished")

access_logger = logging.getLogger("antiphon.access")


class Line(msgspec.Struct):
    """The access log's line for one request."""

    time: str  # of its arrival, UTC
    id: str
    key: str | None  # its name
    method: str
    route: str | None  # the path as documented, with placeholders for ids; null if there is no such route
    status: int
    duration: float  # seconds, until the last byte was sent or, in the background, generated
    time_to_first_token: float | None  # seconds
    prompt_tokens: int
    completion_tokens: int
    outcome: str | None  # finished, aborted, failed or refused; null for requests that generate nothing
    degraded: int | None = None  # the level of load at which its limits were lowered
    trace_id: str | None = None  # of its trace, sampled or not; null if there is none

    def __str__(self) -> str:
        """The line as JSON."""
        return msgspec.json.encode(self).decode()

    @property
    def text(self) -> str:
        """The line as short text, in local time."""
        arrived = datetime.fromisoformat(self.time).astimezone()
        parts = [f"{arrived:%H:%M:%S} {self.status} {self.method} {self.route or '(no such route)'}"]
        if self.prompt_tokens or self.completion_tokens:
            parts.append(f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens")
        parts.append(f"{self.duration:.2f} s")
        if self.time_to_first_token is not None:
            parts.append(f"first token {self.time_to_first_token:.2f} s")
        if self.outcome in ("aborted", "failed"):
            parts.append(self.outcome)
        if self.degraded is not None:
            parts.append(f"degraded (level {self.degraded})")
        if self.key:
            parts.append(self.key)
        return "  ".join(parts)


class TextFormatter(logging.Formatter):
    """Formats the access log's records as short text."""

    def __init__(self, *, before: str = "") -> None:
        """`before` is written before each line; on a terminal it erases a progress bar."""
        super().__init__()
        self._before = before

    def format(self, record: logging.LogRecord) -> str:
        """The line's text."""
        line = record.args[0] if isinstance(record.args, tuple) and record.args else None
        return self._before + (line.text if isinstance(line, Line) else super().format(record))


class AccessLog:
    """Middleware that writes the lines to `access_logger`, at level INFO."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not access_logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        arrived_at, began = datetime.now(UTC), time.monotonic()
        status = GONE

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            running = next((account for account in _accounts(scope) if account.is_running), None)

            def write() -> None:
                access_logger.info("%s", _line(scope, arrived_at, status, time.monotonic() - began))

            if running is None:
                write()
            else:
                running.when_ended(write)


def _accounts(scope: Scope) -> list[RequestAccount]:
    accounts: list[RequestAccount] = scope.get("state", {}).get("accounts", [])
    return accounts


def _line(scope: Scope, arrived_at: datetime, status: int, duration: float) -> Line:
    accounts, trace = _accounts(scope), trace_of(scope)
    first_tokens = [account.first_token_after for account in accounts if account.first_token_after is not None]
    outcomes = {account.outcome for account in accounts}
    return Line(
        time=arrived_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        id=scope["state"]["request_id"],
        key=key_name(scope) or None,
        method=scope["method"],
        route=getattr(scope.get("route"), "path", None),
        status=status,
        duration=round(duration, 4),
        time_to_first_token=round(min(first_tokens), 4) if first_tokens else None,
        prompt_tokens=sum(account.prompt_tokens for account in accounts),
        completion_tokens=sum(account.generated_tokens for account in accounts),
        degraded=max((account.degraded for account in accounts if account.degraded is not None), default=None),
        outcome=next((outcome for outcome in _WORST_FIRST if outcome in outcomes), None),
        trace_id=trace.trace_id if trace else None,
    )


def access_log_writer(text: TextFormatter | None = None, *, already_dropped: int = 0) -> LineWriter:
    """The handler that writes the lines to standard output, as JSON or, with a formatter, as text.

    `already_dropped`: lines that the handler before it has dropped.
    """
    if text is None:
        return LineWriter(STDOUT, dropped=_dropped_line, already_dropped=already_dropped)
    writer = LineWriter(STDOUT, already_dropped=already_dropped)
    writer.setFormatter(text)
    return writer


def _dropped_line(count: int) -> str:
    return msgspec.json.encode({"dropped_lines": count}).decode()

"""One line of JSON for each request, written when it is over, however it ended.

Owns the line's fields. It promises that a line holds no prompt, no answer, no query and no key, the name of a key at
most; that the line of a stream which its client left is written as soon as that is noticed; and that nobody waits for
whoever reads the log (`log_writer`). It must not know how a request is answered; the accounts of the metrics know what
became of it.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.http.edge.authentication import key_name
from antiphon.log_writer import STDOUT, LineWriter
from antiphon.metrics import RequestAccount

_GONE = 499  # nginx's word for a client that left before there was a status
_WORST_FIRST = ("failed", "aborted", "refused", "finished")

access_logger = logging.getLogger("antiphon.access")


class Line(msgspec.Struct):
    """What is said of one request."""

    time: str  # of its arrival, UTC
    id: str
    key: str | None  # its name
    method: str
    route: str | None  # as the API has it, without what stood in the place of an id; null: there is none like it
    status: int
    duration: float  # seconds, to the last byte handed out
    time_to_first_token: float | None  # seconds
    prompt_tokens: int
    completion_tokens: int
    outcome: str | None  # finished, aborted, failed or refused; null where nothing was to be generated


class AccessLog:
    """Writes the lines to `access_logger`, at level INFO."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not access_logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        arrived_at, began = datetime.now(UTC), time.monotonic()
        status = _GONE

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            line = _line(scope, arrived_at, status, time.monotonic() - began)
            access_logger.info("%s", msgspec.json.encode(line).decode())


def _line(scope: Scope, arrived_at: datetime, status: int, duration: float) -> Line:
    accounts: list[RequestAccount] = scope.get("state", {}).get("accounts", [])
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
        outcome=next((outcome for outcome in _WORST_FIRST if outcome in outcomes), None),
    )


def access_log_writer() -> LineWriter:
    """The handler that puts the lines on standard output."""
    return LineWriter(STDOUT, dropped=lambda count: msgspec.json.encode({"dropped_lines": count}).decode())

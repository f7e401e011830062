"""Tells clients which of their fields were not looked at: a header of each reply, a line in the log for each new name.

Owns the names that have been logged. It promises that no client can fill the log with names it makes up.
"""

from __future__ import annotations

import logging

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-ignored-fields"
_MAX_LOGGED = 100  # names

logger = logging.getLogger(__name__)


def note_ignored(request: Request, names: tuple[str, ...]) -> None:
    """Have the reply to `request` name these fields."""
    if names:
        request.scope.setdefault("state", {})["ignored_fields"] = names


class IgnoredFields:
    """Adds the header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._logged: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_names(message: Message) -> None:
            names = scope.get("state", {}).get("ignored_fields")
            if message["type"] == "http.response.start" and names:
                message["headers"] = [*message["headers"], (HEADER, ", ".join(names).encode("ascii"))]
                self._log(names)
            await send(message)

        await self._app(scope, receive, send_with_names if scope["type"] == "http" else send)

    def _log(self, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in self._logged and len(self._logged) < _MAX_LOGGED:
                self._logged.add(name)
                logger.warning("a request has a field that is not known here and was ignored: %s", name)

"""Reports ignored request fields: in a header of the response, and once per name in the log.

The number of logged names is limited, so that a client cannot fill the log with random names.
"""

from __future__ import annotations

import logging

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-ignored-fields"
_MAX_LOGGED = 100  # names

logger = logging.getLogger(__name__)


def note_ignored(request: Request, names: tuple[str, ...]) -> None:
    """Name these fields in the response to `request`."""
    if names:
        request.scope.setdefault("state", {})["ignored_fields"] = names


class IgnoredFields:
    """Middleware that adds the header and logs new names."""

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
                logger.warning("ignored an unknown request field: %s", name)

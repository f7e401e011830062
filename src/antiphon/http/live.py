"""The application that answers now, and its replacement by another while the server runs.

A reload does not change an application: it puts a new one, with the new settings and model, in its place. Requests that
began keep the application that they began with. When the last of them has ended, what only that application needed is
closed. This module does not know what the applications do.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send


class LiveApplication:
    """An ASGI application that passes each request to the application of that moment."""

    def __init__(self, app: FastAPI) -> None:
        self.current = app
        self._running: dict[FastAPI, int] = {app: 0}  # requests that have not ended
        self._when_unused: dict[FastAPI, Callable[[], None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.current
        self._running[app] += 1
        try:
            await app(scope, receive, send)
        finally:
            self._running[app] -= 1
            self._close_if_unused(app)

    def replace(self, app: FastAPI, when_unused: Callable[[], None]) -> None:
        """Pass requests to `app` from now on; call `when_unused` once no request uses the present one any more."""
        old, self.current = self.current, app
        self._running[app] = 0
        self._when_unused[old] = when_unused
        self._close_if_unused(old)

    def _close_if_unused(self, app: FastAPI) -> None:
        if app is not self.current and not self._running[app]:
            del self._running[app]
            self._when_unused.pop(app)()

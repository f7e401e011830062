"""Which names a server answers to: the Host header must be one of them, where any are named.

A page in a browser can have a name of its own resolve to this machine, and its scripts then count as being from here;
the Host header gives them away. Starlette has the same, but not in the shape of our errors.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.errors import InvalidRequest
from antiphon.http.edge.authentication import OPEN_PATHS
from antiphon.http.errors import error_response


class AllowedHosts:
    """Refuses what was sent to another name, but for those who ask whether the server lives: they use addresses."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        """A host is a name or address without a port, or `*.` and a domain for all names below it."""
        self._app = app
        self._names = {host.lower() for host in hosts}
        self._domains = tuple(host[1:].lower() for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._allows(_host(scope)):
            app = error_response(InvalidRequest("This server does not answer to the name in the Host header."), scope)
        await app(scope, receive, send)

    def _allows(self, host: str) -> bool:
        return host in self._names or host.endswith(self._domains)


def _host(scope: Scope) -> str:
    """The Host header without its port."""
    sent = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    name, colon, port = sent.rpartition(":")
    return name.strip("[]") if colon and port.isdecimal() else sent.strip("[]")

"""Checks the host name of a request, and refuses requests from web pages of other sites.

A web page that is open in a browser can send requests to servers that only this machine can reach. If the page's name
resolves to this machine, it can also read the answers. Browsers send the headers `Host`, `Origin` and `Sec-Fetch-Site`,
which a page cannot forge. A server on a loopback address only accepts local host names and configured ones. Every
server refuses requests from pages of other sites, unless their origin is configured. Other clients only send `Host` and
are not affected. Health checks are answered under any name.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.errors import CrossSiteRequest, InvalidRequest
from antiphon.http.edge.authentication import OPEN_PATHS
from antiphon.http.errors import error_response


class AllowedHosts:
    """Middleware that refuses requests to other host names, except health checks, which use addresses."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], *, local: bool) -> None:
        """Allow these hosts.

        A host is a name or address without a port, or `*.` and a domain for all names below it. With `local`, the names
        and addresses of this machine's loopback interface are allowed too.
        """
        self._app = app
        self._names = {host.lower() for host in hosts}
        self._domains = tuple(host[1:].lower() for host in hosts if host.startswith("*."))
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._allows(_host(scope)):
            message = "The name in the Host header is not allowed; add it with --allowed-hosts."
            app = error_response(InvalidRequest(message), scope)
        await app(scope, receive, send)

    def _allows(self, host: str) -> bool:
        return host in self._names or host.endswith(self._domains) or (self._local and is_loopback(host))


class SameSite:
    """Middleware that refuses requests from pages of other sites, unless their origin is allowed."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.lower().encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._allows(scope):
            app = error_response(CrossSiteRequest(), scope)
        await app(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").lower()
        if b"*" in self._origins or origin in self._origins:
            return True
        site = headers.get(b"sec-fetch-site")
        if site is None:  # an older browser, or plain HTTP to another machine; or no browser at all
            return not origin or _name(origin.partition(b"://")[2].decode("latin-1")) == _host(scope)
        if site != b"cross-site":
            return True
        # A user follows a link to one of our pages, such as /docs.
        is_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
        return is_link and scope["method"] in ("GET", "HEAD")


def is_loopback(host: str) -> bool:
    """Whether a name or address, without brackets, is local to this machine."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback


def _host(scope: Scope) -> str:
    """The Host header without its port."""
    return _name(next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1"))


def _name(authority: str) -> str:
    """A name or address without port and brackets."""
    name, colon, port = authority.lower().rpartition(":")
    return name.strip("[]") if colon and port.isdecimal() else authority.lower().strip("[]")

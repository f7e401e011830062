"""Which names a server answers to, and which web pages' requests it takes.

A page of anybody's, open in a browser, can send requests to servers that only this machine reaches, and a page whose
name resolves to this machine can read the answers too. Browsers say so in the headers `Host`, `Origin` and
`Sec-Fetch-Site`, which no page can forge. It promises that a server on a loopback address answers to local names and to
those that were named to it, and that no server takes the requests of another site's pages unless that site was named;
other clients send none of these headers but `Host`, and are not affected. Probes are answered under any name.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.errors import CrossSiteRequest, InvalidRequest
from antiphon.http.edge.authentication import OPEN_PATHS
from antiphon.http.errors import error_response


class AllowedHosts:
    """Refuses what was sent to another name, but for probes: they use addresses."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], *, local: bool) -> None:
        """A host is a name or address without a port, or `*.` and a domain for all names below it. `local`: the names
        and addresses of this machine's loopback interface are allowed as well.
        """
        self._app = app
        self._names = {host.lower() for host in hosts}
        self._domains = tuple(host[1:].lower() for host in hosts if host.startswith("*."))
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._allows(_host(scope)):
            message = "This server does not answer to the name in the Host header; --allowed-hosts adds names to it."
            app = error_response(InvalidRequest(message), scope)
        await app(scope, receive, send)

    def _allows(self, host: str) -> bool:
        return host in self._names or host.endswith(self._domains) or (self._local and is_loopback(host))


class SameSite:
    """Refuses what pages of other sites send, unless their origin is allowed."""

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
        # Somebody follows a link to a page of ours, such as /docs.
        is_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
        return is_link and scope["method"] in ("GET", "HEAD")


def is_loopback(host: str) -> bool:
    """Whether a name or address, without brackets, is this machine's own, reachable from nowhere else."""
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

"""Forms of a request that are taken for others: HEAD, targets with scheme and host, OpenAI's paths without `/v1`.

Owns no rule of its own (RFC 9110, section 9.3.2; RFC 9112, section 3.2.2). It promises that everything behind it sees a
plain path, so that no other check has to know of the other form.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

# What clients ask for that were given an address without /v1.
_OF_V1 = ("/chat/completions", "/completions", "/responses", "/messages", "/models")


class RequestLine:
    """Hands on HEAD as GET, whose body the server then drops, an absolute target as its path, and `/x` as `/v1/x`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = dict(scope)  # the server's own still says HEAD
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
            if scope["path"][:8].lower().startswith(("http://", "https://")):
                _make_plain(scope)
            if any(scope["path"] == path or scope["path"].startswith(f"{path}/") for path in _OF_V1):
                scope["path"], scope["raw_path"] = f"/v1{scope['path']}", b"/v1" + scope["raw_path"]
        await self._app(scope, receive, send)


def _make_plain(scope: Scope) -> None:
    """The target's host goes before the Host header's."""
    parts = urlsplit(scope["raw_path"].decode("latin-1"))
    path = parts.path or "/"
    scope["raw_path"], scope["path"] = path.encode("latin-1"), unquote(path)
    others = [(name, value) for name, value in scope["headers"] if name != b"host"]
    scope["headers"] = [(b"host", parts.netloc.rpartition("@")[2].encode("latin-1")), *others]

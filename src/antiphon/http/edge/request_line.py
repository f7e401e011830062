"""Rewrites equivalent forms of a request: HEAD, targets with scheme and host, and OpenAI's paths without `/v1`.

See RFC 9110, section 9.3.2, and RFC 9112, section 3.2.2. All later code sees plain paths only, so no other check has to
handle the other forms.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

# Paths that clients request if their base URL has no /v1.
_OF_V1 = ("/chat/completions", "/completions", "/responses", "/messages", "/models")


class RequestLine:
    """Turns HEAD into GET (the server drops the body), an absolute target into its path, and `/x` into `/v1/x`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = dict(scope)  # the server's own copy keeps HEAD
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
            if scope["path"][:8].lower().startswith(("http://", "https://")):
                _make_plain(scope)
            if any(scope["path"] == path or scope["path"].startswith(f"{path}/") for path in _OF_V1):
                scope["path"], scope["raw_path"] = f"/v1{scope['path']}", b"/v1" + scope["raw_path"]
        await self._app(scope, receive, send)


def _make_plain(scope: Scope) -> None:
    """Replace an absolute target by its path. Its host replaces the Host header."""
    parts = urlsplit(scope["raw_path"].decode("latin-1"))
    path = parts.path or "/"
    scope["raw_path"], scope["path"] = path.encode("latin-1"), unquote(path)
    others = [(name, value) for name, value in scope["headers"] if name != b"host"]
    scope["headers"] = [(b"host", parts.netloc.rpartition("@")[2].encode("latin-1")), *others]

"""Headers that tell browsers what a page from this server may do; on every response, whatever it holds.

Owns the policy. A response that already has a header of these keeps its own: `/docs` has a stricter policy that allows
its one inline style. An answer of a model is data to these rules: no script, style, frame or image of another origin is
ever loaded, and scripts cannot make HTML from text.

A browser ignores `Cross-Origin-Opener-Policy` from another machine over plain HTTP, and calls it an error in its
console, so there it is left out of pages. Browsers send `Sec-Fetch-Site` everywhere else (Fetch Metadata, section 2).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
_OPENER_POLICY = b"cross-origin-opener-policy"
_RAW = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class SecurityHeaders:
    """Middleware that adds the headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        left_out = {_OPENER_POLICY} if _is_insecure_page(dict(scope["headers"])) else set()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                has = left_out | {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in _RAW if each[0] not in has)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _is_insecure_page(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser opens a page of an origin that it does not trust: plain HTTP to another machine."""
    return b"sec-fetch-site" not in headers and b"text/html" in headers.get(b"accept", b"")

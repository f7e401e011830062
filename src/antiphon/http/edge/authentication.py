"""Authentication: if the server has API keys, all requests except a few need one.

Owns the list of open paths, to which the application adds the chat page's own files. Without a valid key, every other
path is refused before the body is read, including routes that do not exist. Keys are compared in constant time, and
never logged or sent back. Later code gets the name of the request's key from `key_name`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.api_keys import ApiKey, find_api_key
from antiphon.errors import InvalidApiKey
from antiphon.http.errors import error_response
from antiphon.metrics import Metrics

# Health checks usually have no key, and these paths only say whether the server is running.
OPEN_PATHS = frozenset({"/health", "/ready"})

_HOW = "Send it as 'Authorization: Bearer KEY', or as 'x-api-key: KEY'."


class Authentication:
    """Middleware that refuses requests without a valid key."""

    def __init__(
        self, app: ASGIApp, keys: Sequence[ApiKey], metrics: Metrics, is_open: Callable[[Scope], bool]
    ) -> None:
        """`is_open`: whether a request needs no key, beside those to `OPEN_PATHS`."""
        self._app = app
        self._is_open = is_open
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        presented = _presented(scope)
        keys = [key for key in (find_api_key(self._keys, each) for each in presented) if key]
        if not keys:
            self._metrics.unauthorized.inc()
            await _refuse(scope, receive, send, was_wrong=bool(presented))
            return
        self._metrics.key_requests.labels(keys[0].name).inc()
        scope.setdefault("state", {})["key_name"] = keys[0].name
        await self._app(scope, receive, send)


def key_name(scope: Scope) -> str:
    """The name of the request's key; empty if the server has no keys."""
    return str(scope.get("state", {}).get("key_name", ""))


def _presented(scope: Scope) -> list[bytes]:
    """The keys in a request's headers: OpenAI's clients send one, Anthropic's the other, some proxies both."""
    headers = dict(reversed(scope["headers"]))  # the first one, if a header is repeated
    scheme, _, credentials = headers.get(b"authorization", b"").strip().partition(b" ")
    bearer = credentials.strip() if scheme.lower() == b"bearer" else b""
    return [key for key in (bearer, headers.get(b"x-api-key", b"").strip()) if key]


async def _refuse(scope: Scope, receive: Receive, send: Send, *, was_wrong: bool) -> None:
    error = InvalidApiKey(f"The API key is not valid. {_HOW}" if was_wrong else f"An API key is required. {_HOW}")
    response = error_response(error, scope)
    response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if was_wrong else "Bearer"
    await response(scope, receive, send)

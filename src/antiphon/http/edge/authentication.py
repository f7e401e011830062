"""Who may ask: every request but a few must carry an API key, where the server has keys.

Owns the list of what is open to everyone. It promises that whatever is not on that list is refused without a key,
routes that do not exist included, before anything of the body is read; that a key is compared in the same time whether
it is right or wrong; and that no key is ever logged or sent back. Behind it `key_name` tells who asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.api_keys import ApiKey, find_api_key
from antiphon.errors import InvalidApiKey
from antiphon.http.errors import error_response
from antiphon.metrics import Metrics

# Those who watch a server have no key, and learn nothing here but that it lives.
OPEN_PATHS = frozenset({"/health", "/ready"})

_HOW = "Send it as 'Authorization: Bearer KEY', or as 'x-api-key: KEY'."


class Authentication:
    """Refuses what comes without a key."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
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
    """The name of the key that the request of `scope` came with; empty where none is asked for."""
    return str(scope.get("state", {}).get("key_name", ""))


def _presented(scope: Scope) -> list[bytes]:
    """The keys in a request's headers: OpenAI's clients send one, Anthropic's the other, some proxies both."""
    headers = dict(reversed(scope["headers"]))  # of several of one name the first
    scheme, _, credentials = headers.get(b"authorization", b"").strip().partition(b" ")
    bearer = credentials.strip() if scheme.lower() == b"bearer" else b""
    return [key for key in (bearer, headers.get(b"x-api-key", b"").strip()) if key]


async def _refuse(scope: Scope, receive: Receive, send: Send, *, was_wrong: bool) -> None:
    error = InvalidApiKey(f"The API key is not valid here. {_HOW}" if was_wrong else f"An API key is needed. {_HOW}")
    response = error_response(error, scope)
    response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if was_wrong else "Bearer"
    await response(scope, receive, send)

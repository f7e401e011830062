"""Authentication: if the server has API keys, all requests except a few need one. Admin routes need an admin key.

Owns the list of open paths, to which the application adds the chat page's own files. Without a valid key, every other
path is refused before the body is read, including routes that do not exist. An API key does not open the admin routes,
and an admin key opens nothing else. Keys are compared in constant time, and never logged or sent back. Later code gets
the name of the request's key from `key_name`; all admin keys have the name `admin`.

A request that another server passes on (`http.forwarding`) has its client's key, and beside it an admin key in a header
of its own. Only with that key is the address in its `X-Forwarded-For` believed, and its request not counted again.
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

ADMIN_PATH = "/admin"  # and everything below it
PEER_KEY_HEADER = b"x-antiphon-peer-key"  # the admin key of a request that another server passes on
ADMIN = "admin"  # the name of every admin key in the access log

_HOW = "Send it as 'Authorization: Bearer KEY', or as 'x-api-key: KEY'."


class Authentication:
    """Middleware that refuses requests without a valid key."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[ApiKey],
        metrics: Metrics,
        is_open: Callable[[Scope], bool],
        admin_keys: Sequence[ApiKey] = (),
    ) -> None:
        """`is_open`: whether a request needs no key, beside those to `OPEN_PATHS`.

        Without `keys` only the admin routes need a key; without `admin_keys` they are like any other path.
        """
        self._app = app
        self._is_open = is_open
        self._keys = keys
        self._admin_keys = admin_keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._note_peer(scope)
        for_admin = bool(self._admin_keys) and _is_admin_path(scope["path"])
        is_open = not for_admin and (not self._keys or scope["path"] in OPEN_PATHS or self._is_open(scope))
        if is_open or self._has_key(scope, for_admin=for_admin):
            await self._app(scope, receive, send)
        else:
            self._metrics.unauthorized.inc()
            await _refuse(scope, receive, send, for_admin=for_admin)

    def _note_peer(self, scope: Scope) -> None:
        """Note whether another server passes the request on, and the address of its client."""
        headers = dict(scope["headers"])
        presented = headers.get(PEER_KEY_HEADER)
        if presented is None or find_api_key(self._admin_keys, presented) is None:
            return
        scope.setdefault("state", {})["is_from_peer"] = True
        scope["client"] = (headers.get(b"x-forwarded-for", b"").decode("latin-1"), 0)

    def _has_key(self, scope: Scope, *, for_admin: bool) -> bool:
        """Whether the request has a key that is valid for its path. If so, note the key's name."""
        accepted = self._admin_keys if for_admin else self._keys
        keys = [key for key in (find_api_key(accepted, each) for each in _presented(scope)) if key]
        if not keys:
            return False
        state = scope.setdefault("state", {})
        state["is_admin"] = for_admin
        state["key_name"] = ADMIN if for_admin else keys[0].name
        if not for_admin and not is_from_peer(scope):
            self._metrics.key_requests.labels(keys[0].name).inc()
        return True


def key_name(scope: Scope) -> str:
    """The name of the request's key; empty if the server has no keys."""
    return str(scope.get("state", {}).get("key_name", ""))


def is_admin(scope: Scope) -> bool:
    """Whether the request has an admin key and is for an admin route."""
    return bool(scope.get("state", {}).get("is_admin", False))


def is_from_peer(scope: Scope) -> bool:
    """Whether another server has passed the request on, and counted it."""
    return bool(scope.get("state", {}).get("is_from_peer", False))


def _is_admin_path(path: str) -> bool:
    return path == ADMIN_PATH or path.startswith(f"{ADMIN_PATH}/")


def _presented(scope: Scope) -> list[bytes]:
    """The keys in a request's headers: OpenAI's clients send one, Anthropic's the other, some proxies both."""
    headers = dict(reversed(scope["headers"]))  # the first one, if a header is repeated
    scheme, _, credentials = headers.get(b"authorization", b"").strip().partition(b" ")
    bearer = credentials.strip() if scheme.lower() == b"bearer" else b""
    return [key for key in (bearer, headers.get(b"x-api-key", b"").strip()) if key]


async def _refuse(scope: Scope, receive: Receive, send: Send, *, for_admin: bool) -> None:
    was_wrong = bool(_presented(scope))
    what = "admin key" if for_admin else "API key"
    error = InvalidApiKey(f"The {what} is not valid. {_HOW}" if was_wrong else f"An {what} is required. {_HOW}")
    response = error_response(error, scope)
    response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if was_wrong else "Bearer"
    await response(scope, receive, send)

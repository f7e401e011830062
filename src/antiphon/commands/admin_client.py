"""Talks to the admin routes of a server: sends an operation, and waits until it has ended.

Owns the errors of this: no server, a server without admin routes, a wrong key. It does not know what is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from antiphon.errors import AntiphonError, ConfigError

_TIMEOUT = 30.0  # seconds for one answer; operations go on in the background
_POLL_SECONDS = 0.2
_UNAUTHORIZED, _NOT_FOUND = 401, 404
_HOW = "Give its admin key with --admin-key-file or ANTIPHON_ADMIN_KEY"

Json = dict[str, Any]


class AdminClient:
    """One server's admin routes."""

    def __init__(self, client: httpx2.Client, url: str) -> None:
        self._client = client
        self._url = url

    def engines(self) -> Json:
        """All engines, and the latest operation. Raises AntiphonError as for `operate`."""
        return self._ask("GET", "/admin/engines")

    def operate(self, method: str, path: str) -> Json:
        """Start an operation; returns its record, which may say that it runs.

        Raises:
            AntiphonError: the server cannot be reached, has no admin routes, refuses the key or the operation.
        """
        return self._ask(method, f"/admin{path}")

    def wait(self, operation: Json, show: Callable[[Json], None]) -> Json:
        """Wait until an operation has ended; `show` gets the list of engines from time to time.

        Raises:
            AntiphonError: the operation failed; the message is the server's.
        """
        while operation["status"] == "running":
            show(self.engines())
            time.sleep(_POLL_SECONDS)
            operation = self._ask("GET", f"/admin/operations/{operation['id']}")
        return operation

    def _ask(self, method: str, path: str) -> Json:
        try:
            reply = self._client.request(method, path)
            body = reply.json()
        except httpx2.HTTPError as error:
            raise AntiphonError(
                f"cannot reach a server at {self._url} ({type(error).__name__}); give its address with --url"
            ) from None
        except ValueError:
            raise AntiphonError(f"the server at {self._url} is not Antiphon: {path} is not answered in JSON") from None
        if reply.is_success and isinstance(body, dict):
            return body
        raise self._refusal(reply.status_code, body)

    def _refusal(self, status: int, body: object) -> AntiphonError:
        error = body.get("error") if isinstance(body, dict) else None
        fields = error if isinstance(error, dict) else {}
        message, code = str(fields.get("message") or f"status {status}"), fields.get("code")
        if status == _UNAUTHORIZED:
            return AntiphonError(
                f"the server at {self._url} refuses this: {message.partition('. ')[0].rstrip('.')}. {_HOW}; "
                "a server that was started without admin keys has no admin routes"
            )
        if status == _NOT_FOUND and code in ("unknown_url", None):
            return AntiphonError(
                f"the server at {self._url} has no admin routes; start it with --admin-key-file to have them"
            )
        return AntiphonError(message.rstrip("."))


@contextmanager
def admin_client(url: str, key: str) -> Iterator[AdminClient]:
    """A client for the server at `url`. Raises ConfigError if `key` has characters that no key has."""
    if not key.isascii() or not key.isprintable():
        raise ConfigError("--admin-key has characters that a key cannot have; keys are printable ASCII")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False) as client:
        yield AdminClient(client, url)

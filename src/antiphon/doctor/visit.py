"""A visit to a running server: its address, one connection, what it answered so far. The checks ask through it.

Owns the connection and the key. Answers that several checks look at are asked for once.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx2

TIMEOUT = 5.0  # seconds for one answer, and between two parts of a streamed one
_UP = (200, 404)  # statuses of /health: other servers may not have it


class Visit:
    """A server under examination, and the connection to it."""

    def __init__(self, url: str, key: str = "", trust: ssl.SSLContext | None = None) -> None:
        """`url` has no path of an API behind it; `trust`: the accepted certificates, by default the system's."""
        parts = urlsplit(url)
        self.url = url
        self.key = key
        self.scheme = parts.scheme
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.trust = trust or ssl.create_default_context()
        self.client = httpx2.Client(base_url=url, timeout=TIMEOUT, verify=self.trust, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    @property
    def headers(self) -> dict[str, str]:
        """Those that carry the key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def is_local(self) -> bool:
        """Whether the address is one of this machine alone."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def get(self, path: str, *, with_key: bool = True) -> httpx2.Response | None:
        """The answer to a GET; None if the server cannot be reached, as another check has reported.

        Raises:
            httpx2.HTTPError: it does not answer this time.
        """
        return self.client.get(path, headers=self.headers if with_key else {}) if self.is_up else None

    @cached_property
    def asked_at(self) -> float:
        """When /health was asked for, in seconds since 1970."""
        return time.time()

    @cached_property
    def health(self) -> httpx2.Response:
        """The answer to /health. Raises httpx2.HTTPError if there is none."""
        _ = self.asked_at
        return self.client.get("/health")

    @cached_property
    def is_up(self) -> bool:
        """Whether the server itself answers."""
        try:
            return self.health.status_code in _UP
        except httpx2.HTTPError:
            return False

    @cached_property
    def is_antiphon(self) -> bool:
        """Whether it is Antiphon, as far as can be seen with this key.

        vLLM has the same `/version`, but its `/health` has no body.
        """
        if (reply := self.get("/version")) is None or "status" not in json_of(self.health):
            return False
        return reply.status_code == 401 or bool(json_of(reply).get("version"))

    @cached_property
    def proxy_name(self) -> str:
        """What a proxy on the way calls itself; empty if none shows. Antiphon sends neither of these headers."""
        return str(self.health.headers.get("via") or self.health.headers.get("server", "")) if self.is_up else ""


def json_of(reply: httpx2.Response | None) -> dict[str, Any]:
    """The answer's JSON object; empty if it is none."""
    try:
        body = reply.json() if reply is not None else None
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def error_message(reply: httpx2.Response) -> str:
    """The message of an error in OpenAI's shape; empty if it has another, as a proxy's page."""
    error = json_of(reply).get("error")
    return str(error.get("message") or "") if isinstance(error, dict) else ""

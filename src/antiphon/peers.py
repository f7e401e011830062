"""What servers of the same clients tell each other: how much each key and each client has used. A leaf.

Owns the report of one server, the ledger of what the reports of the others said, and the ids of responses, which
name the server that stores them. Reports contain sums since the
start of their server, so one that is lost or read twice changes nothing. This module knows neither HTTP nor the limits.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec

from antiphon.errors import ConfigError

MAX_PEERS = 64
GONE_SECONDS = 60.0  # without a report, after which a peer and its stored responses are taken to be lost
MAX_REPORT_BYTES = 1 << 20  # 1,000 keys and 1,024 clients have some 150 KB
_SERVER_BYTES = 8
_RESPONSE_ID = re.compile(rf"resp_([0-9a-f]{{{2 * _SERVER_BYTES}}})[0-9a-f]{{32}}")
_PEER = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]{1,255}")


class KeyUsage(msgspec.Struct, frozen=True):
    """What one API key has used at one server."""

    requests: int
    tokens: int  # with what is reserved for requests that run


class UsageReport(msgspec.Struct, frozen=True, tag_field="object", tag="usage"):
    """What was used at one server since it started."""

    server: str  # an id of this process
    uptime: float  # seconds
    keys: dict[str, KeyUsage]  # by the key's name; empty where there are no keys
    clients: dict[str, float]  # service in weighted tokens, by the client's name in `--fairness`


class Spent(msgspec.Struct):
    """What was used elsewhere since the last time."""

    keys: dict[str, KeyUsage] = {}
    clients: dict[str, float] = {}


def read_peers(typed: Sequence[str]) -> tuple[str, ...]:
    """The URLs of peers, separated by commas. Raises ConfigError naming one that is not a URL."""
    peers = tuple(url.rstrip("/") for part in typed for url in re.split(r"[,\s]+", part) if url)
    for url in peers:
        if not _PEER.fullmatch(url):
            raise ConfigError(f"--peer has {url!r}; a peer is the URL of another server, such as http://10.0.0.6:8000")
        if peers.count(url) > 1:
            raise ConfigError(f"--peer has {url} twice")
    if len(peers) > MAX_PEERS:
        raise ConfigError(f"--peer has {len(peers)} servers; there may be at most {MAX_PEERS}")
    return peers


def new_response_id(server: str) -> str:
    """A random id in OpenAI's format, for a response that the process `server` will store."""
    return f"resp_{server}{secrets.token_hex(16)}"


class PeerLedger:
    """What the latest report of each peer said, to tell what is new in the next one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.server = secrets.token_hex(_SERVER_BYTES)  # the id of this process
        self._clock = clock
        self._started = clock()
        self._reports: dict[str, UsageReport] = {}  # by URL
        self._reported_at: dict[str, float] = {}

    @property
    def uptime(self) -> float:
        """Seconds since this server started."""
        return self._clock() - self._started

    def holder_of(self, response_id: str) -> str | None:
        """The URL of the peer that stores a response; None if it is this server, or none that is known.

        A peer that has restarted does not have the responses of before. One that has not reported for `GONE_SECONDS`
        is taken to have lost them.
        """
        found = _RESPONSE_ID.fullmatch(response_id)
        if found is None or found[1] == self.server:
            return None
        for url, report in self._reports.items():
            if report.server == found[1]:
                return url if self._clock() - self._reported_at[url] <= GONE_SECONDS else None
        return None

    def take(self, url: str, report: UsageReport) -> Spent:
        """What was used at a peer since its last report.

        A peer that has restarted begins at zero. Of a peer that is older than this server, what it reports first was
        used before this server had any limits to keep. A server that is its own peer uses nothing.
        """
        if report.server == self.server:
            return Spent()
        before = self._reports.get(url)
        self._reports[url], self._reported_at[url] = report, self._clock()
        if before is None and report.uptime > self.uptime:
            return Spent()
        keys, clients = ({}, {}) if before is None or before.server != report.server else (before.keys, before.clients)
        nothing = KeyUsage(0, 0)
        spent = Spent({}, {})
        for key, usage in report.keys.items():
            earlier = keys.get(key, nothing)
            spent.keys[key] = KeyUsage(usage.requests - earlier.requests, usage.tokens - earlier.tokens)
        for client, service in report.clients.items():
            if (more := service - clients.get(client, 0.0)) > 0:
                spent.clients[client] = more
        return spent

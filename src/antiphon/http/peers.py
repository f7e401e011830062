"""Asks the other servers of the same clients what was used there, and counts it in the limits and shares here.

Each peer is asked once a second, by itself, so one that is slow or gone holds up none of the others. The limits that
count are those of the context of that moment, since a reload replaces it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import httpx2
import msgspec

from antiphon.api.context import Context
from antiphon.peers import MAX_REPORT_BYTES, KeyUsage, UsageReport

INTERVAL = 1.0  # seconds between two reports of a peer
_TIMEOUT = 5.0  # seconds for a report
_OK = 200

logger = logging.getLogger(__name__)


class Peers:
    """The other servers, from `start` to `stop`."""

    def __init__(self, urls: tuple[str, ...], key: str, context: Callable[[], Context]) -> None:
        """`key`: an admin key of the peers; `context`: what requests get at that moment."""
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}
        self._context = context
        self._decoder = msgspec.json.Decoder(UsageReport)
        self._tasks: list[asyncio.Task[None]] = []
        self._reached: dict[str, bool] = {}  # by URL, the outcome of the last try

    @property
    def reached(self) -> dict[str, bool]:
        """Whether each peer has sent its latest report, by URL."""
        return {url: self._reached.get(url, False) for url in self._urls}

    def start(self) -> None:
        """Begin to ask; call it on the event loop."""
        self._tasks = [asyncio.create_task(self._follow(url), name=f"peer {url}") for url in self._urls]

    async def stop(self) -> None:
        """End. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _follow(self, url: str) -> None:
        limits = httpx2.Limits(max_connections=1)
        # Not through a proxy of the environment: a peer is an address of the same network.
        async with httpx2.AsyncClient(
            headers=self._headers, timeout=_TIMEOUT, limits=limits, trust_env=False
        ) as client:
            while True:
                try:
                    report = self._decoder.decode(await _read(client, f"{url}/admin/usage"))
                    self._count(url, report)
                    self._note(url, "")
                except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError, ValueError) as error:
                    self._note(url, str(error) or type(error).__name__)
                except Exception:
                    logger.exception("unexpected error with the report of %s, which is asked again", url)
                await asyncio.sleep(INTERVAL)

    def _count(self, url: str, report: UsageReport) -> None:
        context = self._context()
        spent = context.peers.take(url, report)
        for key, usage in spent.keys.items():
            context.rates.charge(key, usage.requests, usage.tokens)
        context.engine.charge_elsewhere(spent.clients)

    def _note(self, url: str, problem: str) -> None:
        """Log a peer that cannot be reached any more, and one that can again; not every try."""
        before, self._reached[url] = self._reached.get(url), not problem
        if problem and before is not False:
            logger.warning(
                "the peer %s does not tell what is used there (%s); it is asked again every second", url, problem
            )
        elif before is False and not problem:
            logger.info("the peer %s tells what is used there", url)


async def _read(client: httpx2.AsyncClient, url: str) -> bytes:
    """A report, of limited size. Raises ValueError if it is none."""
    async with client.stream("GET", url) as reply:
        if reply.status_code != _OK:
            raise ValueError(f"status {reply.status_code}; it needs the same admin key")
        body = bytearray()
        async for chunk in reply.aiter_bytes():
            body += chunk
            if len(body) > MAX_REPORT_BYTES:
                raise ValueError(f"its report is over {MAX_REPORT_BYTES} bytes")
        return bytes(body)


def usage_report(context: Context) -> UsageReport:
    """What was used here, for the peers."""
    keys = {key: KeyUsage(usage.requests, usage.tokens) for key, usage in context.rates.usage.items()}
    clients: dict[str, float] = {client: service for client, service in context.engine.service.items() if client}
    return UsageReport(context.peers.server, context.peers.uptime, keys, clients)

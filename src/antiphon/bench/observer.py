"""Reads the server's own figures: samples while a stage runs, and its counters before and after, while it is idle.

If the server does not answer a scrape, that sample is missing; `Server.scrape` limits the time that it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec

from antiphon.bench.records import SampleRecord
from antiphon.bench.scrape import Scrape, process_tree
from antiphon.bench.server import Server

_IDLE_SECONDS = 10.0  # how long the server may take to be idle after a stage
_POLL_SECONDS = 0.1


class Observer:
    """Reads one server's figures."""

    def __init__(self, server: Server, now: Callable[[], float], *, pid: int = 0, shared: bool = False) -> None:
        """`now`: the clock of the records; `pid`: of a local process whose CPU and memory count; 0: none; `shared`:
        others use the server, so it need not become idle.
        """
        self._server = server
        self._now = now
        self._pid = pid
        self._shared = shared

    async def sample(self, users: int) -> SampleRecord | None:
        """The server's figures now; None if there are none."""
        scrape = await self._server.scrape() if self._server.has_metrics else None
        sample = scrape.sample(self._now(), users) if scrape else None
        if self._pid:
            with suppress(ProcessLookupError):
                cpu, memory = await asyncio.to_thread(process_tree, self._pid)
                sample = sample or SampleRecord(self._now(), users)
                sample = msgspec.structs.replace(sample, cpu_seconds=cpu, memory_bytes=float(memory))
        return sample

    async def idle_scrape(self) -> Scrape | None:
        """The server's counters once it is idle, or after `_IDLE_SECONDS`; None if it has none."""
        deadline = self._now() + _IDLE_SECONDS
        while True:
            scrape = await self._server.scrape() if self._server.has_metrics else None
            if scrape is None or not is_busy(scrape) or self._now() > deadline or self._shared:
                return scrape
            await asyncio.sleep(_POLL_SECONDS)


def growth(before: Scrape, after: Scrape) -> dict[str, float]:
    """By how much the server's counters grew."""
    return {
        name: value - before.counters[name]
        for name, value in after.counters.items()
        if name in before.counters and name != "busy"
    }


def is_busy(scrape: Scrape) -> bool:
    """Whether the server had unfinished requests."""
    return bool(scrape.counters.get("busy"))

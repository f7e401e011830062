"""The GPUs that the engines use, for metrics and for `--degrade`.

Puts together what the engines and the driver (`machine.gpu_usage`) report. The driver is asked in a thread of its own,
one reading at a time, and never waited for for long, since it may block while a GPU fails. Where it reports no memory,
the engines' figures are used: under MIG, in WSL, without nvidia-ml-py, and for engines on other machines.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import groupby
from threading import Thread

from antiphon.engine.client import EngineGpu
from antiphon.machine.gpu_usage import GpuUsage, Nvml
from antiphon.metrics import GpuFigures

_READ_EVERY = 1.0  # seconds
_KEPT = 5.0  # seconds; older readings do not count
_LONGEST_WAIT = 0.5  # seconds that a scrape waits for a reading
_UNKNOWN = GpuUsage()

logger = logging.getLogger(__name__)

Usages = Mapping[str, GpuUsage]  # by UUID


class GpuWatch:
    """Reads the state of the GPUs. For one event loop."""

    def __init__(
        self,
        engines: Callable[[], Sequence[EngineGpu]],
        usage: Callable[[str], GpuUsage] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engines`: the GPU of each engine that uses one; `usage`: what the driver reports; None: NVML."""
        self._engines = engines
        self._usage = usage or Nvml().usage
        self._clock = clock
        self._reading: Future[Usages] | None = None
        self._began_at = -math.inf  # the running or latest reading
        self._read_at = -math.inf  # the latest that ended
        self._usages: Usages = {}

    def figures(self) -> list[GpuFigures]:
        """The GPUs as last read; begins another reading if that was a while ago."""
        self._look()
        is_fresh = self._clock() - self._read_at <= _KEPT
        found = sorted(self._engines(), key=_identity)
        return [
            _figures(list(engines), self._usages.get(uuid, _UNKNOWN) if is_fresh else _UNKNOWN)
            for (uuid, _), engines in groupby(found, key=_identity)
        ]

    def reserve_usage(self) -> float | None:
        """The largest share of a GPU's planned reserve that is in use, 0 to 1; None: no plan is known."""
        return max((share for each in self.figures() if (share := each.reserve_usage) is not None), default=None)

    async def refresh(self) -> None:
        """Read anew, and wait for it, though not for long; does nothing without GPUs."""
        self._look(at_once=True)
        if self._reading is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(self._reading), _LONGEST_WAIT)

    def _look(self, *, at_once: bool = False) -> None:
        """Take a finished reading, and begin the next one if it is time."""
        if self._reading is not None and self._reading.done():
            self._usages, self._read_at, self._reading = self._reading.result(), self._began_at, None
        now = self._clock()
        if self._reading is not None or (now - self._began_at < _READ_EVERY and not at_once):
            return
        if uuids := {gpu.uuid for gpu in self._engines() if gpu.is_here and gpu.uuid}:
            self._began_at = now
            self._reading = _begin(self._usage, uuids)


def _begin(usage: Callable[[str], GpuUsage], uuids: Iterable[str]) -> Future[Usages]:
    """Ask in a thread of its own: one that blocks keeps neither requests nor the server's end waiting."""
    reading: Future[Usages] = Future()

    def read() -> None:
        try:
            reading.set_result({each: usage(each) for each in uuids})
        except Exception as error:
            logger.warning("the driver's figures of the GPUs cannot be read: %s", error)
            reading.set_result({})

    reading.set_running_or_notify_cancel()
    Thread(target=read, name="gpus", daemon=True).start()
    return reading


def _identity(gpu: EngineGpu) -> tuple[str, str]:
    return gpu.uuid, gpu.number


def _figures(engines: Sequence[EngineGpu], usage: GpuUsage) -> GpuFigures:
    """One GPU, with all engines that use it."""
    latest = max(engines, key=lambda each: each.generation)
    is_from_driver = usage.used is not None and usage.total is not None
    reserve = sum(each.reserve for each in engines if each.generation == latest.generation)
    return GpuFigures(
        gpu=latest.number,
        uuid=latest.uuid,
        name=latest.name,
        source="nvml" if is_from_driver else "engine",
        used=usage.used if is_from_driver else latest.used,
        total=usage.total if is_from_driver else latest.total,
        planned=sum(each.planned for each in engines) or None,
        reserve=reserve or None,
        utilization=usage.utilization,
        temperature=usage.temperature,
        temperature_limit=usage.temperature_limit,
        power=usage.power,
        power_limit=usage.power_limit,
    )

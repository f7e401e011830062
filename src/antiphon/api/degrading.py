"""Applies the limits of the current level of load to new requests, and tells what was changed.

Owns the ladder (`engine.degrading`) of one server, and samples its signals: when a request comes, and four times a
second while there is work or the level is above 0. Limits are computed once, when a request becomes a job. A later
change of the level does not affect it, so an answer depends on its effective limits alone: the same request with these
limits written out gets the same bits.

Nothing here blocks the event loop: memory is read in a thread, since the kernel may take long to answer when there is
little left.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from msgspec import UNSET

from antiphon.api.gpus import GpuWatch
from antiphon.api.shapes import Degraded
from antiphon.api.threads import TextThreads
from antiphon.degrade_rules import NO_LIMITS, DegradeRules, Limits, Shed, Signal
from antiphon.engine.admission.degrading import Ladder
from antiphon.engine.admission.load_signals import LoadSignals
from antiphon.engine.client import EngineClient
from antiphon.errors import AntiphonError, Overloaded
from antiphon.machine import Memory, see_memory
from antiphon.metrics import Metrics
from antiphon.request import SamplingParams, ServiceTier, Terms

SAMPLE_SECONDS = 0.25
_MEMORY_SECONDS = 1.0  # between two readings
_MEMORY_SIGNALS = (Signal.MEMORY, Signal.MEMORY_RESERVE)
_LEAST_RETRY_AFTER = 1.0  # seconds
_SPREAD = 16  # refused clients come back at so many different times

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Load:
    """What applies to one request."""

    level: int = 0
    limits: Limits = NO_LIMITS
    is_probe: bool = False  # it shows whether requests can be accepted again

    def capped(self, sampling: SamplingParams) -> SamplingParams:
        """The parameters within the limits; the thought is limited elsewhere (`api.chat.thinking`)."""
        limits = self.limits
        most = sampling.max_tokens if limits.max_tokens is None else max(limits.max_tokens, sampling.min_tokens)
        temperature = sampling.temperature if limits.temperature is None else limits.temperature
        return replace(
            sampling,
            max_tokens=min(sampling.max_tokens, most),
            temperature=min(sampling.temperature, temperature),
        )

    def changes(self, before: SamplingParams, after: SamplingParams, budget: int | None = None) -> Degraded | None:
        """The effective limits that the load has changed; None if there are none.

        `budget`: the thought's, if it was changed other than by `max_tokens`.
        """
        if before.max_tokens == after.max_tokens and before.temperature == after.temperature and budget is None:
            return None
        return Degraded(
            self.level,
            max_tokens=UNSET if before.max_tokens == after.max_tokens else after.max_tokens,
            thinking_token_budget=UNSET if budget is None else budget,
            temperature=UNSET if before.temperature == after.temperature else after.temperature,
        )


NO_LOAD = Load()


class Degrading:
    """The state of one server's ladder."""

    def __init__(
        self,
        engine: EngineClient,
        rules: DegradeRules,
        stay: float,
        metrics: Metrics,
        threads: TextThreads,
        gpus: GpuWatch,
        *,
        memory_reserve: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`memory_reserve`: bytes of the machine's memory that stay free when the KV cache is full, as planned.

        0: not known.
        """
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._signals = LoadSignals()
        self._gpus = gpus
        self._memory = _MemoryWatch(threads, memory_reserve, clock)
        self._sampled_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._num_refused = 0
        self._set_rules(rules, stay)

    def configure(self, rules: DegradeRules, stay: float) -> None:
        """Use other rules from now on, beginning at level 0; nothing changes if they are the same."""
        if (rules, stay) != (self._rules, self._stay):
            self._set_rules(rules, stay)
            self._publish()

    def set_memory_reserve(self, memory_reserve: int) -> None:
        """Set the bytes that stay free with another model."""
        self._memory.reserve = memory_reserve

    def _set_rules(self, rules: DegradeRules, stay: float) -> None:
        self._rules, self._stay = rules, stay
        self._ladder = Ladder(rules, stay)
        self._reads_memory = not rules.signals.isdisjoint(_MEMORY_SIGNALS)
        for number in range(1, len(rules.steps) + 1):
            self._metrics.degraded_requests.labels(str(number))

    @property
    def level(self) -> int:
        """The level now."""
        return self._ladder.level

    # --- what applies to a request

    def check_open(self) -> None:
        """Raise Overloaded if every new request is refused; cheap, for use before a body is read."""
        self._look()
        ladder = self._ladder
        if ladder.limits.shed is Shed.ALL and not ladder.allows_probe:
            raise self.refusal("The server has too much work and accepts no new requests")

    def load_for(self, tier: ServiceTier) -> Load:
        """What applies to a request that comes now.

        Raises:
            Overloaded: requests of its tier are refused.
        """
        self.check_open()
        ladder = self._ladder
        is_probe = ladder.limits.shed is Shed.ALL
        level = ladder.probe_level if is_probe else ladder.level
        limits = self._rules.limits(level)
        if limits.shed is Shed.FLEX and tier is ServiceTier.FLEX:
            raise self.refusal("The server has too much work for requests with service_tier 'flex'")
        return Load(level, limits, is_probe)

    def refusal(self, message: str) -> Overloaded:
        """A refusal that says when the level may be lower. Different clients get different times."""
        self._num_refused += 1
        least = max(_LEAST_RETRY_AFTER, self._ladder.retry_after(self._clock()))
        retry_after = least * (1 + self._num_refused % _SPREAD / _SPREAD)
        advice = f"please try again in {math.ceil(retry_after)} seconds"
        return Overloaded(f"{message}; {advice}.", retry_after=retry_after, reason="degraded")

    def check_allowed(self, changes: Degraded | None, degrade: str | None) -> None:
        """Raise Overloaded if limits are changed, and the request's field `degrade` forbids that."""
        if changes is not None and degrade == "never":
            listed = ", ".join(f"{name}={value}" for name, value in changes.limits())
            raise self.refusal(f"The server has too much work to answer without lower limits ({listed})")

    def begin(self, load: Load) -> RequestLoad:
        """A request is handed to the engine.

        Raises:
            Overloaded: another one is the probe.
        """
        is_probe = load.is_probe and self._ladder.limits.shed is Shed.ALL  # else all are accepted again meanwhile
        if is_probe and not self._ladder.take_probe(self._clock()):
            raise self.refusal("The server has too much work and accepts no new requests")
        return RequestLoad(self, is_probe=is_probe)

    # --- what it learns from requests

    def note_prediction(self, terms: Terms, wait: float | None) -> None:
        """The predicted wait of a request, accepted or not, for its first token."""
        if wait is not None and terms.first_token < math.inf:
            self._signals.note_prediction(self._clock(), terms.client, wait, terms.first_token)

    def note_missed(self, deadline: float) -> None:
        """A request missed its deadline of so many seconds."""
        self._signals.note_missed(self._clock(), deadline)

    def note_met(self) -> None:
        """A request was answered in time."""
        self._signals.note_met()

    def end_probe(self, *, is_good: bool | None) -> None:
        """A probe has shown something, or (None) ended without."""
        self._ladder.end_probe(self._clock(), is_good=is_good)
        self._publish()

    # --- sampling

    def _look(self) -> None:
        """Sample if the last one is old, and go on sampling while there is something to see."""
        if not self._rules.steps:
            return
        now = self._clock()
        if now - self._sampled_at >= SAMPLE_SECONDS:
            self._sample(now)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAMPLE_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._sample(self._clock())
        if self._engine.counters.running or self._ladder.level:
            self._timer = asyncio.get_running_loop().call_later(SAMPLE_SECONDS, self._tick)

    def _sample(self, now: float) -> None:
        self._sampled_at = now
        before = self._ladder.level
        signals = self._measured(now)
        level = self._ladder.observe(now, signals)
        if level != before:
            measured = ", ".join(f"{name} {value:.2f}" for name, value in signals.items())
            logger.warning("degrading: level %d (was %d): %s", level, before, measured)
            self._publish()

    def _publish(self) -> None:
        self._metrics.degrade_level.set(self._ladder.level)

    def _measured(self, now: float) -> Mapping[Signal, float]:
        engine, stats, signals = self._engine, self._engine.stats, self._signals
        signals.note_restarts(now, engine.restarts)
        measured = {
            Signal.WAIT: signals.wait(now) if engine.counters.running else 0.0,
            Signal.KV: stats.blocks_in_use / stats.blocks_total if stats.blocks_total else 0.0,
            Signal.TIMEOUTS: float(signals.timeouts(now)),
            Signal.ENGINE_DEATHS: float(signals.engine_deaths(now)),
        }
        if self._reads_memory:
            measured |= self._memory.shares()
            if (share := self._gpus.reserve_usage()) is not None:
                measured[Signal.MEMORY_RESERVE] = max(share, measured.get(Signal.MEMORY_RESERVE, 0.0))
        return measured


class RequestLoad:
    """What one request that was handed to the engine shows about the load."""

    def __init__(self, degrading: Degrading, *, is_probe: bool) -> None:
        self._degrading = degrading
        self._is_probe = is_probe
        self._has_missed = False

    def note_refused(self, error: AntiphonError, terms: Terms) -> None:
        """The engine's client has refused it."""
        wait = error.predicted_wait if isinstance(error, Overloaded) else None
        self._degrading.note_prediction(terms, wait)
        self._end_probe(is_good=False if isinstance(error, Overloaded) else None)

    def note_accepted(self, terms: Terms, predicted_wait: float | None) -> None:
        """The engine's client has accepted it."""
        self._degrading.note_prediction(terms, predicted_wait)

    def note_first_token(self) -> None:
        """Its first token came."""
        self._end_probe(is_good=True)

    def note_missed(self, deadline: float) -> None:
        """Its deadline, so many seconds after its arrival, has passed; only the first counts."""
        if not self._has_missed:
            self._has_missed = True
            self._degrading.note_missed(deadline)
            self._end_probe(is_good=False)

    def note_end(self, outcome: str) -> None:
        """It ended as in the metrics."""
        if outcome == "finished" and not self._has_missed:
            self._degrading.note_met()
        self._end_probe(is_good=False if outcome == "failed" else None)

    def _end_probe(self, *, is_good: bool | None) -> None:
        if self._is_probe:
            self._is_probe = False
            self._degrading.end_probe(is_good=is_good)


class _MemoryWatch:
    """Reads the memory in a thread, one reading at a time; `shares` are those of the last one."""

    def __init__(self, threads: TextThreads, reserve: int, clock: Callable[[], float]) -> None:
        self._threads = threads
        self.reserve = reserve
        self._clock = clock
        self._reading: Future[Memory] | None = None
        self._read_at = -math.inf
        self._shares: dict[Signal, float] = {}

    def shares(self) -> Mapping[Signal, float]:
        """The shares in use; empty before the first reading."""
        if self._reading is not None and self._reading.done():
            self._shares, self._reading = self._of(self._reading.result()), None
        now = self._clock()
        if self._reading is None and now - self._read_at >= _MEMORY_SECONDS:
            self._read_at = now
            with suppress(RuntimeError):  # the server is stopping, and its threads take no more work
                self._reading = self._threads.submit(see_memory)
        return self._shares

    def _of(self, memory: Memory) -> dict[Signal, float]:
        shares = {Signal.MEMORY: 1 - memory.free / memory.total if memory.total else 0.0}
        if self.reserve > 0:
            shares[Signal.MEMORY_RESERVE] = max(0.0, 1 - memory.free / self.reserve)
        return shares


def header_of(degraded: Degraded) -> str:
    """The value of the header `x-antiphon-degraded`: "level=2; max_tokens=512"."""
    parts: list[tuple[str, Any]] = [("level", degraded.level), *degraded.limits()]
    return "; ".join(f"{name}={value}" for name, value in parts)

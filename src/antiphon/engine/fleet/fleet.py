"""The engines of one model: starts, counts and stops them.

Owns the engines and their generations. `places` says where each of them runs, `dispatcher` which of them has a request,
and `operations` changes the set of engines while they serve.

Engines of one *generation* serve the same model file with the same settings. New requests go to the current generation;
those that began with an earlier one stay with it, until they end.

Everything here runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from copy import deepcopy
from math import inf
from typing import Protocol

from antiphon.config import EngineConfig
from antiphon.engine.fleet.breaker import BreakerSettings
from antiphon.engine.fleet.dispatcher import Dispatcher
from antiphon.engine.fleet.engine_handle import EngineHandle, Generation, Supervise
from antiphon.engine.fleet.launching import Launchers, Place
from antiphon.engine.fleet.placement import Estimate
from antiphon.engine.fleet.places import Places
from antiphon.engine.fleet.totals import counted, total
from antiphon.engine.fleet.view import EngineState, EngineView
from antiphon.engine.requests.accounts import Accounts
from antiphon.engine.wire import EngineStats, Ready
from antiphon.errors import AntiphonError, EngineDied, EngineUnavailable, NotReady
from antiphon.grammar import Vocabulary

logger = logging.getLogger(__name__)


class FleetOwner(Protocol):
    """The client, as its fleet sees it."""

    def fleet_ready(self) -> None:
        """All engines that were started first are ready, except those whose machines cannot be reached."""
        ...

    def fleet_failed(self, error: AntiphonError) -> None:
        """No engine is left that serves new requests, and no other will be started."""
        ...


class Fleet:
    """The engines of one model. `engines` has those that were started and not removed, by id."""

    def __init__(
        self,
        config: EngineConfig,
        vocabulary: Vocabulary | None,
        owner: FleetOwner,
        accounts: Accounts,
        *,
        supervise: Supervise,
        launchers: Launchers,
        estimate: Estimate,
        breaker: BreakerSettings = BreakerSettings(failures=0),  # noqa: B008  # frozen
    ) -> None:
        self.engines: dict[int, EngineHandle] = {}
        self.places = Places(launchers)
        self.dispatcher = Dispatcher(self.engines, accounts, estimate)
        self.generation = Generation(1, config, vocabulary)  # the current one
        self.generations = {1: self.generation}  # all that have engines, by number
        self._owner = owner
        self._accounts = accounts
        self._supervise = supervise
        self._estimate = estimate
        self._breaker = breaker
        self._num_generations = 1
        self._past = EngineStats()  # the counts of removed engines
        self._past_restarts = 0
        self._past_openings = 0
        self._next_id = 1
        self._removals: set[asyncio.Future[None]] = set()  # engines that are being stopped
        self._has_started = False  # all engines that were started first have been ready
        self._is_stopped = False

    # --- what they are doing

    @property
    def state(self) -> EngineState:
        """The state of the current generation's engines together: READY if one takes requests."""
        engines = self.of_generation(self.generation.number)
        if any(engine.takes_requests for engine in engines):
            return EngineState.READY
        if engines and all(engine.error for engine in engines):
            return EngineState.FAILED
        return EngineState.RESTARTING if self.generation.info else EngineState.LOADING

    @property
    def info(self) -> Ready | None:
        """What an engine of the current generation said of itself; None until the first is ready."""
        return self.generation.info

    @property
    def stats(self) -> EngineStats:
        """All engines as if they were one, with the counts of those that are gone."""
        return total([self._past, *(engine.lifetime_stats for engine in self.engines.values())])

    @property
    def longest_cycle(self) -> float:
        """Seconds of the slowest engine's latest step, with the time between it and the step before."""
        return max((engine.stats.cycle_seconds for engine in self.engines.values()), default=0.0)

    @property
    def num_restarts(self) -> int:
        """The number of processes that died and were replaced."""
        return self._past_restarts + sum(engine.restarts for engine in self.engines.values())

    @property
    def num_openings(self) -> int:
        """How often a breaker of an engine opened."""
        return self._past_openings + sum(engine.breaker.num_opened for engine in self.engines.values())

    def of_generation(self, number: int) -> list[EngineHandle]:
        """The engines of a generation."""
        return [engine for engine in self.engines.values() if engine.generation == number]

    @property
    def serving(self) -> list[EngineHandle]:
        """The engines that new requests may get; while there is none, those that are on their way."""
        return self.taking or self.of_generation(self.generation.number)

    @property
    def taking(self) -> list[EngineHandle]:
        """The engines of the current generation that take requests."""
        return [engine for engine in self.of_generation(self.generation.number) if engine.takes_requests]

    def num_taking(self, generation: int) -> int:
        """How many engines of a generation take requests."""
        return sum(engine.takes_requests for engine in self.of_generation(generation))

    def configure_breakers(self, settings: BreakerSettings) -> None:
        """Use other settings for the breakers of all engines, from now on."""
        self._breaker = settings
        for engine in self.engines.values():
            engine.breaker.configure(settings)

    def check_breakers(self, generation: int) -> None:
        """Raise EngineUnavailable if all engines of this generation keep failing, so that none takes new requests."""
        soonest = inf
        for engine in self.engines.values():
            if engine.generation == generation and not engine.error:
                if (wait := engine.retry_after) is None:
                    return
                soonest = min(soonest, wait)
        if soonest < inf:
            raise EngineUnavailable(soonest)

    def charge_elsewhere(self, clients: Mapping[str, float]) -> None:
        """Count service from other servers in the clients' shares: weighted tokens, by fairness id.

        Each engine gets an equal part, since each has counters of its own.
        """
        if clients and (engines := self.taking):
            part = {client: service / len(engines) for client, service in clients.items()}
            for engine in engines:
                engine.charge_elsewhere(part)

    def views(self) -> list[EngineView]:
        """A snapshot of each engine, in the order of their ids."""
        return [engine.view(sum(map(self._estimate, engine.requests.values()))) for engine in self.engines.values()]

    # --- their lives

    def start(self) -> None:
        """Start the first engines."""
        self.places.divide(self.generation.config)
        for place in self.places.for_all(self.generation.config):
            self.start_engine(self.generation, place)

    def place_at(self, address: str) -> Place:
        """The place for another engine at an address, or on a device of this machine.

        Raises ConfigError if engines cannot run there.
        """
        taken = [engine.place for engine in self.of_generation(self.generation.number)]
        return self.places.another(address, self.generation.config, taken)

    def start_engine(self, generation: Generation, place: Place) -> EngineHandle:
        """Start an engine. It gets requests as soon as it is ready."""
        if self._is_stopped:
            raise NotReady("The server is shutting down.")
        engine = EngineHandle(self._next_id, generation, place, self, self._accounts, self._breaker)
        if peers := [each for each in self.of_generation(generation.number) if each.place.is_gpu == place.is_gpu]:
            # It will probably be as fast as they are.
            same_place = [peer for peer in peers if peer.place.address == place.address]
            engine.capacity = deepcopy((same_place or peers)[0].capacity)
            engine.capacity.forget_forecast()
        self._next_id += 1
        self.engines[engine.id] = engine
        engine.start(self._supervise(self.places.config_at(place, generation.config), generation.vocabulary, engine))
        return engine

    async def remove_engine(self, engine: EngineHandle) -> None:
        """Move an engine's requests to others, as far as there are any, then stop and forget it.

        It is stopped even if the caller is cancelled meanwhile.
        """
        engine.is_drained = True
        self.dispatcher.move_requests(engine)
        removal = asyncio.ensure_future(self._stop_engine(engine))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
        await asyncio.shield(removal)

    async def _stop_engine(self, engine: EngineHandle) -> None:
        await engine.stop()
        if self.engines.pop(engine.id, None):
            self._past = total([self._past, counted(engine.lifetime_stats)])
            self._past_restarts += engine.restarts
            self._past_openings += engine.breaker.num_opened

    async def stop(self) -> None:
        """Stop all engines."""
        self._is_stopped = True
        await asyncio.gather(*(engine.stop() for engine in self.engines.values()), *self._removals)

    # --- generations

    def add_generation(self, config: EngineConfig, vocabulary: Vocabulary | None) -> Generation:
        """A new generation, which gets no requests until `begin_generation`."""
        self._num_generations += 1
        generation = Generation(self._num_generations, config, vocabulary)
        self.generations[generation.number] = generation
        return generation

    def begin_generation(self, generation: Generation) -> None:
        """Send new requests to the engines of this generation."""
        self.generation = generation

    def adopt(self, old: int) -> None:
        """Let the current generation's engines compute the requests of an earlier one, which has the same bits."""
        for unfinished in self._accounts.unfinished.values():
            if unfinished.generation == old:
                unfinished.generation = self.generation.number

    # --- what its engines call

    def engine_ready(self, engine: EngineHandle) -> None:
        self.generations[engine.generation].info = engine.info
        self._compare_arithmetic(engine)
        self.dispatcher.place_waiting()
        self._check_started()

    def _compare_arithmetic(self, engine: EngineHandle) -> None:
        """Warn if an engine that is ready computes other bits than its peers."""
        mine = engine.info.system_fingerprint if engine.info else ""
        for other in self.of_generation(engine.generation):
            theirs = other.info.system_fingerprint if other.info and other.is_connected else ""
            if mine and theirs and mine != theirs:
                logger.warning(
                    "engine %d computes other bits than engine %d (%s, %s): answers that move between them continue "
                    "from the tokens already sent, but not as one engine alone would have continued them",
                    engine.id, other.id, mine, theirs,
                )  # fmt: skip
                return

    def engine_died(self, engine: EngineHandle) -> None:
        self.dispatcher.place_waiting()
        self._check_started()

    def _check_started(self) -> None:
        """Note that the first engines are ready. Those whose machines cannot be reached are not waited for."""
        engines = self.engines.values()
        if self._has_started or not any(each.info for each in engines):
            return
        if all(each.info or each.is_away for each in engines):
            self._has_started = True
            self._owner.fleet_ready()

    def engine_given_up(self, engine: EngineHandle) -> None:
        assert engine.error
        if not self._has_started:
            self._owner.fleet_failed(engine.error)
        elif any(each.error is None for each in self.of_generation(engine.generation)):
            self.dispatcher.place_waiting()
        elif engine.generation == self.generation.number:
            self._owner.fleet_failed(engine.error)
        else:
            self._fail_generation(engine.generation)

    def _fail_generation(self, number: int) -> None:
        """End the requests of an earlier generation that has no engine left."""
        for unfinished in list(self._accounts.unfinished.values()):
            if unfinished.generation == number:
                self._accounts.fail(unfinished, EngineDied("The engine died and could not be started again."))

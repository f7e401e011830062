"""The engines of one model: starts and stops them, and gives each unfinished request to one of them.

Owns the engines and the decision which of them has a request. A request that has no engine, because none is ready or
because its engine died, gets another one as soon as one can take it. Requests get engines in order of arrival. The
tokens that were received go with a request, so its stream continues. `accounts` has the requests; the client decides
which are accepted; `operations` changes the set of engines while they serve.

Engines of one *generation* serve the same model file with the same settings. New requests go to the current generation;
those that began with an earlier one stay with it, until they end.

Everything here runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import count
from math import inf
from typing import Protocol

from antiphon.config import EngineConfig, is_device
from antiphon.engine.fleet.breaker import BreakerSettings
from antiphon.engine.fleet.engine_handle import EngineHandle, Generation, Supervise
from antiphon.engine.fleet.launching import HERE, Launchers, Place
from antiphon.engine.fleet.placement import Estimate, Placement
from antiphon.engine.fleet.routing import prefix_digests
from antiphon.engine.fleet.totals import counted, total
from antiphon.engine.fleet.view import EngineState, EngineView
from antiphon.engine.requests.accounts import Accounts
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.wire import EngineStats, Ready
from antiphon.errors import AntiphonError, EngineDied, EngineUnavailable, NotReady
from antiphon.grammar import Vocabulary
from antiphon.machine import Seat

logger = logging.getLogger(__name__)

_TOKENS_AT_ONCE = 100_000  # given to engines before other tasks of the event loop run, which takes some milliseconds

_THREADS_BESIDE_GPU = 2  # of a GPU engine's process, where CPU engines have all cores

Divide = Callable[[int, int], Sequence[Seat]]  # engines and threads of each → a seat for each engine


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
        divide: Divide,
        estimate: Estimate,
        breaker: BreakerSettings = BreakerSettings(failures=0),  # noqa: B008  # frozen
    ) -> None:
        self.engines: dict[int, EngineHandle] = {}
        self.generation = Generation(1, config, vocabulary)  # the current one
        self.generations = {1: self.generation}  # all that have engines, by number
        self._owner = owner
        self._accounts = accounts
        self._supervise = supervise
        self._launchers = launchers
        self._divide = divide
        self._estimate = estimate
        self._breaker = breaker
        self._seats: Sequence[Seat] = ()
        self._num_generations = 1
        self._past = EngineStats()  # the counts of removed engines
        self._past_restarts = 0
        self._past_openings = 0
        self._next_id = 1
        self._removals: set[asyncio.Future[None]] = set()  # engines that are being stopped
        self._has_started = False  # all engines that were started first have been ready
        self._is_stopped = False
        self._is_placing = False  # a round of giving requests to engines goes on in a later turn of the event loop

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
        self.divide_again(self.generation.config)
        for place in self.places(self.generation.config):
            self.start_engine(self.generation, place)

    def places(self, config: EngineConfig) -> list[Place]:
        """A place for each engine that `config` asks for, after `divide_again` with it."""
        here, seats = self._launchers(HERE), count()
        local = [
            Place(here, next(seats) if _has_seat(config, device) else None, device) for device in config.local_devices
        ]
        return local + [Place(self._launchers(each)) for each in config.remote_engines]

    def place_at(self, address: str) -> Place:
        """The place for another engine at an address, or on a device of this machine.

        Raises ConfigError if engines cannot run there.
        """
        if address == HERE:
            address = self._free_device()
        if address != HERE and not is_device(address):
            return Place(self._launchers(address))
        seat = self._free_seat() if _has_seat(self.generation.config, address) else None
        return Place(self._launchers(HERE), seat, address)

    def divide_again(self, config: EngineConfig) -> Sequence[Seat]:
        """Divide the machine's cores as `config` asks, for engines that are started from now on.

        Returns the seats so far, for `divide_as`.
        """
        with_seats = sum(_has_seat(config, device) for device in config.local_devices)
        before, self._seats = self._seats, self._divide(max(1, with_seats), config.threads)
        return before

    def divide_as(self, seats: Sequence[Seat]) -> None:
        """Use these seats again."""
        self._seats = seats

    def _free_seat(self) -> int:
        """The number of the seat that the fewest engines of the current generation have."""
        taken = [engine.place.seat for engine in self.of_generation(self.generation.number)]
        return min(range(len(self._seats)), key=lambda seat: (taken.count(seat), seat))

    def _free_device(self) -> str:
        """The device of this machine that the fewest engines of the current generation have."""
        taken = [engine.place.address for engine in self.of_generation(self.generation.number)]
        devices = dict.fromkeys(self.generation.config.local_devices) or ("",)
        return min(devices, key=taken.count)

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
        engine.start(self._supervise(self._config_at(place, generation.config), generation.vocabulary, engine))
        return engine

    def _config_at(self, place: Place, config: EngineConfig) -> EngineConfig:
        """The settings for an engine at a place."""
        if not place.is_here:
            return config
        config = replace(config, device=place.device or config.device)
        if place.seat is None:
            return replace(config, threads=config.threads or _THREADS_BESIDE_GPU)
        share = self._seats[place.seat]
        return replace(config, cpus=share.cpus, threads=share.threads)

    async def remove_engine(self, engine: EngineHandle) -> None:
        """Move an engine's requests to others, as far as there are any, then stop and forget it.

        It is stopped even if the caller is cancelled meanwhile.
        """
        engine.is_drained = True
        self.move_requests(engine)
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

    # --- requests

    def engine_for(self, group: Sequence[Unfinished]) -> EngineHandle | None:
        """The engine that would get these requests, which belong together; None if they would have to wait for one."""
        return Placement(self.engines.values(), self._estimate).engine_for(group)

    @property
    def is_placing(self) -> bool:
        """Whether requests wait for their turn to get an engine, though engines take requests."""
        return self._is_placing

    def place(self, group: Sequence[Unfinished], engine: EngineHandle | None) -> None:
        """Give new requests that belong together to their engine, as `engine_for` has just chosen it.

        They wait if it is None, or if others have waited longer for an engine.
        """
        if engine and not self._is_placing:
            placement = Placement(self.engines.values(), self._estimate)
            for unfinished in group:
                placement.give(unfinished, engine)

    def place_waiting(self) -> None:
        """Give engines the requests that wait for one, without blocking the event loop."""
        if not self._is_placing:
            self._place_some()

    def spread_waiting(self) -> None:
        """Choose engines again for requests that no engine has begun, since there are more engines now."""
        for engine in self.of_generation(self.generation.number):
            for unfinished in list(engine.requests.values()):
                if not unfinished.has_begun:
                    unfinished.stream.note_engine("moved", engine.id)
                    engine.withdraw(unfinished)
        self.place_waiting()

    def move_requests(self, engine: EngineHandle) -> None:
        """Take all requests from an engine, and give them to others."""
        for unfinished in list(engine.requests.values()):
            unfinished.stream.note_engine("moved", engine.id)
            engine.withdraw(unfinished)
        self.place_waiting()

    def withdraw(self, unfinished: Unfinished, *, is_answered: bool = False) -> None:
        """Take a request from the engine that has it, if any; `is_answered` as for `EngineHandle.withdraw`."""
        if unfinished.engine_id is not None:
            self.engines[unfinished.engine_id].withdraw(unfinished, is_answered=is_answered)

    def hand_over(self, unfinished: Unfinished, heir: Unfinished) -> None:
        """Let an equal request take the place of another, at its engine or among those that wait for one."""
        if unfinished.engine_id is not None:
            self.engines[unfinished.engine_id].hand_over(unfinished, heir)
        else:
            heir.take_place_of(unfinished)

    def forget(self, unfinished: Unfinished) -> None:
        """Note that a request has ended."""
        if unfinished.engine_id is not None:
            engine = self.engines[unfinished.engine_id]
            engine.forget(unfinished)
            if len(self.engines) > 1:  # the next turn of a conversation begins with all of this
                known = [*unfinished.request.prompt_token_ids, *unfinished.output_token_ids]
                engine.prefixes.note(prefix_digests(known, unfinished.request.cache_salt))

    def _place_some(self) -> None:
        self._is_placing = False
        placement = Placement(self.engines.values(), self._estimate)
        num_tokens = 0
        for unfinished in self._accounts.unfinished.values():
            if unfinished.engine_id is not None or unfinished.leader:
                continue
            if not (engine := placement.engine_for([unfinished])):
                continue
            if num_tokens > _TOKENS_AT_ONCE:
                self._is_placing = True
                asyncio.get_running_loop().call_soon(self._place_some)
                return
            placement.give(unfinished, engine)
            num_tokens += unfinished.num_tokens

    # --- what its engines call

    def engine_ready(self, engine: EngineHandle) -> None:
        self.generations[engine.generation].info = engine.info
        self._compare_arithmetic(engine)
        self.place_waiting()
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
        self.place_waiting()
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
            self.place_waiting()
        elif engine.generation == self.generation.number:
            self._owner.fleet_failed(engine.error)
        else:
            self._fail_generation(engine.generation)

    def _fail_generation(self, number: int) -> None:
        """End the requests of an earlier generation that has no engine left."""
        for unfinished in list(self._accounts.unfinished.values()):
            if unfinished.generation == number:
                self._accounts.fail(unfinished, EngineDied("The engine died and could not be started again."))


def _has_seat(config: EngineConfig, device: str) -> bool:
    """Whether an engine on this device has a share of the cores: not a GPU engine beside engines that compute there."""
    devices = [each or config.device for each in config.local_devices]
    return "cpu" not in devices or (device or config.device) == "cpu"

"""The front's view of its engines: give it a request, iterate over its tokens.

The facade that the rest of the front uses. `accounts` follows the requests, `admission` decides which are accepted, and
`fleet` has the engines and decides which of them gets a request. If an engine dies, another one gets its unfinished
requests, with the tokens that were already received, and the streams continue (`unfinished`). This module does not know
HTTP, text or scheduling.

Everything here runs on one asyncio loop, which must be that of the main thread, since an engine dies with the thread
that started it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.admission.admission import Admission, Load
from antiphon.engine.admission.capacity import Capacity
from antiphon.engine.admission.speed import CombinedSpeed
from antiphon.engine.fleet.autoscaler import Autoscaler
from antiphon.engine.fleet.autoscaling import Demand, ScalingRules, scaling_rules
from antiphon.engine.fleet.breaker import BreakerSettings
from antiphon.engine.fleet.engine_handle import EngineHandle, Supervising
from antiphon.engine.fleet.fleet import Fleet
from antiphon.engine.fleet.launchers import launchers_for
from antiphon.engine.fleet.launching import Launchers
from antiphon.engine.fleet.operations import Operations
from antiphon.engine.fleet.supervisor import Supervisor
from antiphon.engine.fleet.view import EngineGpu, EngineState, EngineView
from antiphon.engine.requests.accounts import Accounts, Counters, Listener
from antiphon.engine.requests.sharing import Sharing, signature
from antiphon.engine.requests.stream import TokenStream
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.wire import EngineStats, Loading, Ready
from antiphon.errors import AntiphonError, CheckpointError, ContextLengthExceeded, EngineDied, NotReady
from antiphon.grammar import Vocabulary
from antiphon.machine import Seat, divide, free_memory_bytes, see_processors
from antiphon.request import Arrival, FinishReason, GenerateRequest, Terms, TokenEvent

__all__ = ["Counters", "EngineClient", "EngineGpu", "EngineState", "EngineView", "Listener", "TokenStream"]

NO_TERMS = Terms()


class EngineClient:
    """The interface to the engines. The server creates, starts and stops it.

    `operations` are what an operator can do to the engines. `error` is why they were given up (with
    EngineState.FAILED).
    """

    def __init__(
        self,
        engine: EngineConfig,
        server: ServerConfig,
        vocabulary: Vocabulary | None = None,
        *,
        launchers: Launchers | None = None,
        free_memory: Callable[[], int] = free_memory_bytes,
    ) -> None:
        """`vocabulary`: the model's, for requests with a grammar, which fail without it; `free_memory`: for tests.

        `launchers`: what starts engines in the places that the settings name; None: as `launchers.launchers_for` says.
        """
        self.error: AntiphonError | None = None
        self._accounts = Accounts(self)
        self._admission = Admission(server.max_queued_requests)
        self._settings = server
        self._sharing = Sharing()
        self._fleet = Fleet(
            engine,
            vocabulary,
            self,
            self._accounts,
            supervise=self._supervise,
            launchers=launchers or launchers_for(lambda: self._settings),
            divide=_divide,
            estimate=self._estimate,
            breaker=_breaker_settings(server),
        )
        self.operations = Operations(self._fleet, self._accounts, free_memory)
        self._autoscaler = Autoscaler(self)
        self._nobody = Capacity(engine)  # of no engine, while there is none
        self._draining = False
        self._stopped = False
        self._loaded = asyncio.Event()  # the first engines are ready, or never will be
        self._drained = asyncio.Event()  # draining, and nothing is running any more, or nobody waits for it

    def _supervise(self, config: EngineConfig, vocabulary: Vocabulary | None, engine: EngineHandle) -> Supervising:
        launcher, address = engine.place.launcher, engine.place.address
        name = f"engine {engine.id}" + (f" ({address})" if address else "")
        return Supervisor(config, lambda: self._settings.hang_timeout, engine, vocabulary, name, launcher)

    # --- what it is doing

    @property
    def state(self) -> EngineState:
        """The state of all engines together: READY if one of them takes requests."""
        if self._stopped:
            return EngineState.STOPPED
        if self.error:
            return EngineState.FAILED
        return EngineState.DRAINING if self._draining else self._fleet.state

    @property
    def is_ready(self) -> bool:
        """Whether there is an engine, and new requests are accepted."""
        return self.state is EngineState.READY

    @property
    def counters(self) -> Counters:
        """The accounts of all requests."""
        return self._accounts.counters

    @property
    def info(self) -> Ready | None:
        """An engine's description of itself; None until the first is ready, kept while engines restart.

        All engines that get new requests have the same model and sizes.
        """
        return self._fleet.info

    @property
    def stats(self) -> EngineStats:
        """The engines' state as if they were one; counts include those of engines that are gone."""
        return self._fleet.stats

    def stats_of(self, engine_id: int) -> EngineStats:
        """The state of one engine after its latest step; counts include those of its earlier processes."""
        engine = self._fleet.engines.get(engine_id)
        return engine.lifetime_stats if engine else EngineStats()

    @property
    def speed(self) -> CombinedSpeed:
        """How fast answers are generated."""
        engines = self._serving
        busy = [engine for engine in engines if engine.has_work]
        return CombinedSpeed([engine.capacity.speed for engine in busy or engines], len(engines))

    @property
    def settings(self) -> ServerConfig:
        """The server's settings that apply now."""
        return self._settings

    @property
    def engine_settings(self) -> EngineConfig:
        """The settings of the engines that get new requests."""
        return self._fleet.generation.config

    @property
    def max_num_sequences(self) -> int:
        """Answers that are computed at the same time, by all engines together."""
        return self._fleet.generation.config.max_num_sequences * max(1, len(self._serving))

    @property
    def loading(self) -> Loading | None:
        """How far loading has come, of the engine that is furthest behind; None while no engine is loading."""
        return min(filter(None, (engine.loading for engine in self._all)), key=lambda it: it.fraction, default=None)

    @property
    def num_shared(self) -> int:
        """Requests that were not computed, because an equal one was."""
        return self._sharing.num_shared

    @property
    def num_inexact(self) -> int:
        """Requests that continued on an engine with other arithmetic than the one before."""
        return self._accounts.num_inexact

    @property
    def restarts(self) -> int:
        """The number of engine processes that died and were replaced."""
        return self._fleet.num_restarts

    @property
    def breakers_opened(self) -> int:
        """How often a breaker of an engine opened."""
        return self._fleet.num_openings

    @property
    def trouble(self) -> str | None:
        """How an engine died that is not back yet: a clause fit for clients."""
        return next((engine.trouble for engine in self._all if engine.trouble), None)

    @property
    def engine_pid(self) -> int | None:
        """The process id of the first engine, for logs and tests."""
        return next((engine.pid for engine in self._all), None)

    def engines(self) -> list[EngineView]:
        """A snapshot of each engine, in the order of their ids."""
        return self._fleet.views()

    def gpus(self) -> list[EngineGpu]:
        """The GPU of each engine that uses one; several engines may use the same."""
        return [gpu for engine in self._all if (gpu := engine.gpu)]

    def apply(self, settings: ServerConfig) -> None:
        """Take in the server's settings again: limits and time-outs. They hold for new requests, and at once."""
        self._settings = settings
        self._admission.max_requests = settings.max_queued_requests
        self._fleet.configure_breakers(_breaker_settings(settings))
        if not self._draining:
            self._autoscaler.start()

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every event of every request, after counting it. It must be fast and not raise."""
        self._accounts.subscribe(listener)

    @property
    def _all(self) -> list[EngineHandle]:
        return list(self._fleet.engines.values())

    @property
    def _serving(self) -> list[EngineHandle]:
        """The engines that new requests may get; while there is none, those that are on their way."""
        engines = self._fleet.of_generation(self._fleet.generation.number)
        return [engine for engine in engines if engine.takes_requests] or engines

    @property
    def generation(self) -> int:
        """The generation of engines that new requests go to; 1 at first."""
        return self._fleet.generation.number

    def info_of(self, generation: int | None) -> Ready | None:
        """As `info`, of the engines that serve this generation; None: the current one."""
        number = self.operations.generation_serving(self.generation if generation is None else generation)
        return self.info if number in (None, self.generation) else self._fleet.generations[number].info

    # --- its life

    async def start(self) -> None:
        """Start the first engines. Returns at once; `wait_ready` waits until they are loaded."""
        self._fleet.start()
        self._autoscaler.start()

    async def wait_ready(self) -> Ready:
        """Wait until requests are accepted. Raises the reason if they never will be (CheckpointError, EngineDied …)."""
        await self._loaded.wait()
        if self.error:
            raise self.error
        if self.info is None:
            raise NotReady("The server was stopped while it was loading.")
        return self.info

    def begin_drain(self) -> None:
        """Refuse new requests from now on."""
        self._draining = True
        self._autoscaler.cancel()
        self._note_if_drained()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109  # a time-out is an answer here, not an error
        """Refuse new requests, and wait at most `timeout` seconds for the running ones. Returns whether all ended."""
        self.begin_drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), timeout)
        return not self._accounts.unfinished

    async def stop(self) -> None:
        """Drain for `drain_timeout`, abort what is left and stop the engines. A second call meanwhile stops at once."""
        if self._draining:
            self._drained.set()
        await self.drain(self._settings.drain_timeout)
        for request_id in list(self._accounts.unfinished):
            self.abort(request_id)
        self._stopped = True
        self._loaded.set()
        await self._autoscaler.stop()
        await self.operations.stop()
        await self._fleet.stop()

    # --- requests

    def generate(self, request: GenerateRequest, terms: Terms = NO_TERMS) -> TokenStream:
        """Accept a request and return its stream. The same as `generate_all` of one."""
        return self.generate_all([request], terms)[0]

    def generate_all(
        self, requests: Sequence[GenerateRequest], terms: Terms = NO_TERMS, *, generation: int | None = None
    ) -> list[TokenStream]:
        """Accept requests that belong together and return their streams, or refuse all of them now.

        Each `request_id` must be unique among the requests of this server's life. A request with `output_token_ids`
        goes on after them; the stream has those that come then. A request whose turn does not come within
        `terms.first_token` seconds ends with Overloaded. `generation`: of the model that the tokens belong to; None:
        the current one.

        Raises:
            Overloaded: they would have to wait longer than `terms` allows, or there are too many.
            NotReady: there is no engine to wait for.
            EngineUnavailable: all engines keep failing.
            ContextLengthExceeded: a prompt is too long.
        """
        counters = self._accounts.counters
        counters.received += len(requests)
        try:
            number = self._check(requests, generation)
            self._fleet.check_breakers(number)
            group = [self._unfinished(request, terms, number) for request in requests]
            for unfinished in group:
                unfinished.group = group
            if len(group) == 1 and (leader := self._leader_of(group[0])):
                return [self._follow(group[0], leader)]
            engine = self._fleet.engine_for(group)
            load = self._load_for(engine, self._fleet.num_taking(number))
            predicted = self._admission.admit(requests, terms, load)
        except AntiphonError:
            counters.refused += len(requests)
            raise
        start_before = self._admission.start_before(terms, predicted)
        for unfinished in group:
            unfinished.predicted = predicted
            self._accounts.accept(unfinished)
            if start_before < inf:
                self._check_after(unfinished, start_before)
            unfinished.stream.predicted_wait = predicted.first_token
        if len(group) == 1:
            self._sharing.lead(group[0])
        self._fleet.place(group, engine)
        return [unfinished.stream for unfinished in group]

    def _leader_of(self, unfinished: Unfinished) -> Unfinished | None:
        """The request that a new one can follow instead of being computed."""
        unfinished.signature = signature(unfinished.request, unfinished.terms, unfinished.generation)
        leader = self._sharing.leader_of(unfinished)
        return leader if leader and self._admission.has_place(unfinished.request) else None

    def _follow(self, unfinished: Unfinished, leader: Unfinished) -> TokenStream:
        """Accept a request that gets the events of an equal one: at once those that came, then each with it."""
        self._admission.admit_for_free(unfinished.request)
        self._accounts.accept(unfinished)
        self._sharing.follow(unfinished, leader)
        unfinished.stream.predicted_wait = leader.stream.predicted_wait
        if leader.stream.begun_at is not None:
            unfinished.stream.note_begun(time.monotonic())
        elif (patience := min(unfinished.terms.first_token, unfinished.terms.whole_answer)) < inf:
            self._check_after(unfinished, patience)
        unfinished.take_fingerprint_of(leader)
        if leader.stream.is_inexact:
            self._accounts.note_inexact(unfinished)
        for event in leader.events:
            self._accounts.deliver(unfinished, replace(event, request_id=unfinished.request.request_id))
        return unfinished.stream

    def _unfinished(self, request: GenerateRequest, terms: Terms, generation: int) -> Unfinished:
        stream = TokenStream(request.request_id, self.abort)
        return Unfinished(request, stream, [*request.output_token_ids], terms, generation=generation)

    def check_early(self, arrival: Arrival, terms: Terms) -> None:
        """Refuse a request before its body is decoded, if it would be refused whatever is in it.

        `terms` are the longest that it can have. It is not counted.

        Raises:
            Overloaded: it would have to wait longer than `terms` allows, or there are too many.
        """
        engines: list[EngineHandle | None] = [engine for engine in self._serving if engine.takes_requests]
        loads = (self._load_for(engine, len(engines)) for engine in engines or [None])
        self._admission.check_early(arrival, terms, loads)

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request now; its stream gets the terminal event, the engine frees its blocks within a step.

        Unknown ids are ignored, since the request may just have ended.
        """
        if unfinished := self._accounts.unfinished.get(request_id):
            self._let_go(unfinished, is_answered=reason is not FinishReason.ABORT)
            self._accounts.deliver(unfinished, TokenEvent(request_id, finish_reason=reason))

    def _let_go(self, unfinished: Unfinished, *, is_answered: bool = False) -> None:
        """Take a request from its engine, unless an equal one takes its place there."""
        if unfinished.followers:
            self._fleet.hand_over(unfinished, self._sharing.succeed(unfinished))
        self._fleet.withdraw(unfinished, is_answered=is_answered)

    @property
    def service(self) -> dict[str, int]:
        """What each client has had from these engines since the server started: weighted tokens, by fairness id."""
        return self._accounts.service.snapshot()

    def charge_elsewhere(self, clients: Mapping[str, float]) -> None:
        """Count service from other servers in the clients' shares here: weighted tokens, by fairness id.

        Each engine gets an equal part, since each has counters of its own.
        """
        engines = [engine for engine in self._serving if engine.takes_requests]
        if clients:
            part = {client: service / len(engines) for client, service in clients.items()} if engines else {}
            for engine in engines:
                engine.charge_elsewhere(part)

    def check_breakers(self) -> None:
        """Raise EngineUnavailable if a new request would be refused because all engines keep failing."""
        self._fleet.check_breakers(self.generation)

    @property
    def tokens_owed(self) -> float:
        """Tokens still to be computed for all unfinished requests: of prompts, and expected ones of answers."""
        return sum(map(self._estimate, self._accounts.unfinished.values()))

    def _estimate(self, unfinished: Unfinished) -> float:
        return 0.0 if unfinished.leader else self._admission.tokens_owed_of(unfinished, self._context_length)

    def demand(self) -> Demand:
        """What the engines that serve new requests have to do, for autoscaling."""
        engines = [engine for engine in self._serving if engine.takes_requests]
        return Demand(
            wait=min((self._admission.wait_after_all(self._load_for(each)) for each in engines), default=0.0),
            sequences=sum(each.leader is None for each in self._accounts.unfinished.values()),
            places=min((each.capacity.num_places for each in engines), default=1),
        )

    async def add_engines(self, count: int, address: str) -> list[int]:
        """As `operations` does it."""
        return await self.operations.add_engines(count, address)

    async def remove_engine(self, engine_id: int) -> None:
        """As `operations` does it."""
        await self.operations.remove_engine(engine_id)

    def scaling_rules(self) -> ScalingRules | None:
        """When the number of engines changes, as the present settings say; None: it does not."""
        return scaling_rules(self.engine_settings, self._settings)

    @property
    def engines_wanted(self) -> int:
        """The number of engines that there should be, in all: as the settings say, and autoscaling within them."""
        config, rules, wanted = self.engine_settings, self.scaling_rules(), self._autoscaler.wanted
        configured = config.num_local_engines + len(config.remote_engines)
        return configured if rules is None or wanted is None else configured - rules.minimum + wanted

    def _load_for(self, engine: EngineHandle | None, num_engines: int = 1) -> Load:
        """What a new request has to wait for that this engine would get; None: it has to wait for an engine.

        Requests that have no engine may all get the one that the new request gets. `num_engines`: those that take
        requests.
        """
        if engine and engine.takes_requests and not self._fleet.is_placing:  # none of its generation waits for one
            return Load(engine.capacity, engine.requests.values(), self._context_length, num_engines, only_grows=True)
        capacity = engine.capacity if engine else next((each.capacity for each in self._serving), self._nobody)
        engine_ids = (None, engine.id if engine else None)
        computed = (each for each in self._accounts.unfinished.values() if each.leader is None)
        mine = [each for each in computed if each.engine_id in engine_ids]
        return Load(capacity, mine, self._context_length, max(1, num_engines))

    @property
    def _context_length(self) -> int:
        return self.info.context_length if self.info else 0

    def _check(self, requests: Sequence[GenerateRequest], generation: int | None) -> int:
        """Raise NotReady or ContextLengthExceeded if these cannot be computed here; returns their generation."""
        match self.state:
            case EngineState.LOADING:
                raise NotReady("The model is still loading.", retry_after=5.0)
            case EngineState.DRAINING | EngineState.STOPPED:
                raise NotReady("The server is shutting down.", retry_after=10.0)
            case EngineState.FAILED:
                raise NotReady("The engine failed and was given up; the server's log says why.", retry_after=30.0)
        number = self.operations.generation_serving(self.generation if generation is None else generation)
        if number is None:
            raise NotReady("The model was replaced while the request was being read; please send it again.")
        info = self._fleet.generations[number].info
        limit = info.context_length if info else 0
        for request in requests:
            if len(request.prompt_token_ids) >= limit:
                raise ContextLengthExceeded(len(request.prompt_token_ids), limit)
        return number

    def _check_after(self, unfinished: Unfinished, seconds: float) -> None:
        """Check after so many seconds whether a request has begun, or can still begin in time."""
        grace = max(0.5, 2 * self._fleet.longest_cycle)  # it cannot begin before the current step has ended
        loop = asyncio.get_running_loop()
        unfinished.expiry = loop.call_later(seconds + grace, self._check_waiting, unfinished)

    def _check_waiting(self, unfinished: Unfinished) -> None:
        """End a request that waits too long, never one of which an engine has begun any sequence."""
        if unfinished.has_begun:
            return
        engine = self._fleet.engines.get(unfinished.engine_id or 0)
        load = self._load_for(engine)
        left = unfinished.patience_left if unfinished.leader else self._admission.time_left(unfinished, load)
        if left > 0:  # steps or answers have become shorter
            self._check_after(unfinished, left)
            return
        self._let_go(unfinished)
        load = self._load_for(engine)
        others = [each for each in load.unfinished if each is not unfinished]
        self._accounts.fail(unfinished, self._admission.give_up(unfinished, replace(load, unfinished=others)))

    def _note_if_drained(self) -> None:
        if self._draining and not self._accounts.unfinished:
            self._drained.set()

    # --- what the accounts call

    def request_answered(self, unfinished: Unfinished, num_cached_tokens: int) -> None:
        if unfinished.leader is None:
            self._admission.note_first(unfinished, num_cached_tokens)

    def request_ended(self, unfinished: Unfinished, reason: FinishReason) -> None:
        if unfinished.followers:  # it ended for itself alone
            self._fleet.hand_over(unfinished, self._sharing.succeed(unfinished))
        self._sharing.leave(unfinished)
        counts_for_all = not unfinished.is_handed_over  # it may have been part of every engine's forecast
        self._fleet.forget(unfinished)
        self.operations.note_end(unfinished.generation)
        self._admission.note_end(unfinished, reason)
        for engine in self._all if counts_for_all else ():
            engine.capacity.forget_forecast()
        self._note_if_drained()

    # --- what the fleet calls

    def fleet_ready(self) -> None:
        self._loaded.set()

    def fleet_failed(self, error: AntiphonError) -> None:
        self.error = error
        reason = "The engine died and could not be started again."
        if isinstance(error, CheckpointError):  # its message contains paths, so only the log gets it
            reason += " The model's files have changed or are damaged; the server has to be restarted."
        for unfinished in list(self._accounts.unfinished.values()):
            self._accounts.fail(unfinished, EngineDied(reason))
        self._loaded.set()


def _divide(num_engines: int, threads: int) -> Sequence[Seat]:
    """The machine's cores, divided among engines; one engine alone chooses its cores by itself."""
    return divide(see_processors(), num_engines, threads) if num_engines > 1 else (Seat((), threads),)


def _breaker_settings(server: ServerConfig) -> BreakerSettings:
    """The settings of each engine's breaker."""
    return BreakerSettings(
        failures=server.breaker_failures,
        failure_rate=server.breaker_failure_rate,
        window=server.breaker_window,
        delay=server.breaker_delay,
    )

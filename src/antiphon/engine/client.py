"""The front's view of its engines: give it a request, iterate over its tokens.

The facade that the rest of the front uses. It puts the parts together, starts and stops them, and shows their state.
Requests pass through `request_flow`; `accounts` follows them to their end, and `fleet` has the engines. If an engine
dies, another one gets its unfinished requests, with the tokens that were already received, and the streams continue
(`unfinished`). This module does not know HTTP, text or scheduling.

Everything here runs on one asyncio loop, which must be that of the main thread, since an engine dies with the thread
that started it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.admission.admission import Admission
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
from antiphon.engine.fleet.workload import Workload
from antiphon.engine.request_flow import RequestFlow
from antiphon.engine.requests.accounts import Accounts, Counters, Listener
from antiphon.engine.requests.stream import TokenStream
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.wire import EngineStats, Loading, Ready
from antiphon.errors import AntiphonError, CheckpointError, EngineDied, NotReady
from antiphon.grammar import Vocabulary
from antiphon.machine import free_memory_bytes
from antiphon.request import Arrival, FinishReason, GenerateRequest, Terms

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
        self._fleet = Fleet(
            engine,
            vocabulary,
            self,
            self._accounts,
            supervise=self._supervise,
            launchers=launchers or launchers_for(lambda: self._settings),
            estimate=lambda unfinished: self._workload.estimate(unfinished),
            breaker=BreakerSettings.of(server),
        )
        self.operations = Operations(self._fleet, self._accounts, free_memory)
        self._workload = Workload(self._fleet, self._accounts, self._admission)
        self._requests = RequestFlow(
            self._accounts, self._admission, self._fleet, self.operations, self._workload, lambda: self.state
        )
        self._autoscaler = Autoscaler(self.operations, self.scaling_rules, self._workload.demand)
        self._draining = False
        self._stopped = False
        self._loaded = asyncio.Event()  # the first engines are ready, or never will be
        self._drained = asyncio.Event()  # draining, and nothing is running any more, or nobody waits for it

    def _supervise(self, config: EngineConfig, vocabulary: Vocabulary | None, engine: EngineHandle) -> Supervising:
        """What keeps an engine's process alive; tests and simulations have engines of another kind."""
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
        engines = self._fleet.serving
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
        return self._fleet.generation.config.max_num_sequences * max(1, len(self._fleet.serving))

    @property
    def loading(self) -> Loading | None:
        """How far loading has come, of the engine that is furthest behind; None while no engine is loading."""
        return min(filter(None, (engine.loading for engine in self._all)), key=lambda it: it.fraction, default=None)

    @property
    def num_shared(self) -> int:
        """Requests that were not computed, because an equal one was."""
        return self._requests.sharing.num_shared

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
        self._fleet.configure_breakers(BreakerSettings.of(settings))
        if not self._draining:
            self._autoscaler.start()

    @property
    def _all(self) -> list[EngineHandle]:
        return list(self._fleet.engines.values())

    @property
    def generation(self) -> int:
        """The generation of engines that new requests go to; 1 at first."""
        return self._fleet.generation.number

    def info_of(self, generation: int | None) -> Ready | None:
        """As `info`, of the engines that serve this generation; None: the current one."""
        number = self.operations.generation_serving(self.generation if generation is None else generation)
        return self.info if number in (None, self.generation) else self._fleet.generations[number].info

    # --- how much it has to do

    @property
    def tokens_owed(self) -> float:
        """Tokens still to be computed for all unfinished requests: of prompts, and expected ones of answers."""
        return self._workload.tokens_owed

    def demand(self) -> Demand:
        """What the engines that take new requests have to do, for autoscaling."""
        return self._workload.demand()

    def scaling_rules(self) -> ScalingRules | None:
        """When the number of engines changes, as the present settings say; None: it does not."""
        return scaling_rules(self.engine_settings, self._settings)

    @property
    def engines_wanted(self) -> int:
        """The number of engines that there should be, in all: as the settings say, and those that autoscaling adds."""
        config = self.engine_settings
        return config.num_local_engines + len(config.remote_engines) + self._autoscaler.num_added

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

    def _note_if_drained(self) -> None:
        if self._draining and not self._accounts.unfinished:
            self._drained.set()

    # --- requests

    def generate(self, request: GenerateRequest, terms: Terms = NO_TERMS) -> TokenStream:
        """Accept a request and return its stream. The same as `generate_all` of one."""
        return self.generate_all([request], terms)[0]

    def generate_all(
        self, requests: Sequence[GenerateRequest], terms: Terms = NO_TERMS, *, generation: int | None = None
    ) -> list[TokenStream]:
        """Accept requests that belong together and return their streams, or refuse all of them now.

        Each `request_id` must be unique among the requests of this server's life. A request with `output_token_ids`
        continues after them; the stream has only the tokens that follow. A request whose turn does not come within
        `terms.first_token` seconds ends with Overloaded. `generation`: of the model that the tokens belong to; None:
        the current one.

        Raises:
            Overloaded: they would have to wait longer than `terms` allows, or there are too many.
            NotReady: there is no engine to wait for.
            EngineUnavailable: all engines keep failing.
            ContextLengthExceeded: a prompt is too long.
        """
        return self._requests.accept(requests, terms, generation)

    def check_early(self, arrival: Arrival, terms: Terms) -> None:
        """Refuse a request before its body is decoded, if it would be refused whatever is in it.

        `terms` are the longest that it can have. It is not counted.

        Raises:
            Overloaded: it would have to wait longer than `terms` allows, or there are too many.
        """
        self._admission.check_early(arrival, terms, self._workload.loads())

    def check_breakers(self) -> None:
        """Raise EngineUnavailable if a new request would be refused because all engines keep failing."""
        self._fleet.check_breakers(self.generation)

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request now; its stream gets the terminal event, the engine frees its blocks within a step.

        Unknown ids are ignored, since the request may just have ended.
        """
        self._requests.abort(request_id, reason)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every event of every request, after counting it. It must be fast and not raise."""
        self._accounts.subscribe(listener)

    @property
    def service(self) -> dict[str, int]:
        """What each client has had from these engines since the server started: weighted tokens, by fairness id."""
        return self._accounts.service.snapshot()

    def charge_elsewhere(self, clients: Mapping[str, float]) -> None:
        """Count service from other servers in the clients' shares here: weighted tokens, by fairness id."""
        self._fleet.charge_elsewhere(clients)

    # --- what the accounts call

    def request_answered(self, unfinished: Unfinished, num_cached_tokens: int) -> None:
        self._requests.note_first(unfinished, num_cached_tokens)

    def request_ended(self, unfinished: Unfinished, reason: FinishReason) -> None:
        self._requests.note_end(unfinished, reason)
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

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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.accounts import Accounts, Counters, Listener
from antiphon.engine.admission import Admission, Load
from antiphon.engine.capacity import Capacity
from antiphon.engine.engine_handle import EngineHandle
from antiphon.engine.fleet import Fleet
from antiphon.engine.speed import Speed
from antiphon.engine.stream import TokenStream
from antiphon.engine.supervisor import EngineOwner, Supervisor
from antiphon.engine.unfinished import Unfinished
from antiphon.engine.view import EngineState, EngineView
from antiphon.engine.wire import EngineStats, Loading, Ready
from antiphon.errors import AntiphonError, CheckpointError, ContextLengthExceeded, EngineDied, NotReady
from antiphon.grammar import Vocabulary
from antiphon.request import FinishReason, GenerateRequest, Terms, TokenEvent

__all__ = ["Counters", "EngineClient", "EngineState", "EngineView", "Listener", "TokenStream"]

NO_TERMS = Terms()


class EngineClient:
    """The interface to the engines. The server creates, starts and stops it.

    `error` is why the engines were given up (with EngineState.FAILED), `counters` are the accounts.
    """

    def __init__(self, engine: EngineConfig, server: ServerConfig, vocabulary: Vocabulary | None = None) -> None:
        """`vocabulary`: the model's, for requests with a grammar, which fail without it."""
        self.error: AntiphonError | None = None
        self.max_num_sequences = engine.max_num_sequences  # answers computed at the same time
        self._accounts = Accounts(self)
        self._admission = Admission(server.max_queued_requests)
        self._first_capacity = Capacity(engine)  # of engines that are not started yet
        self._drain_timeout = server.drain_timeout

        def supervise(config: EngineConfig, owner: EngineOwner) -> Supervisor:
            return Supervisor(config, server.hang_timeout, owner, vocabulary)

        self._fleet = Fleet(engine, self, self._accounts, supervise)
        self._draining = False
        self._stopped = False
        self._loaded = asyncio.Event()  # the first engines are ready, or never will be
        self._drained = asyncio.Event()  # draining, and nothing is running any more, or nobody waits for it

    # --- what it is doing

    @property
    def state(self) -> EngineState:
        if self._stopped:
            return EngineState.STOPPED
        if self.error:
            return EngineState.FAILED
        if self._draining:
            return EngineState.DRAINING
        return EngineState.LOADING if not self._fleet.engines else self._fleet.state

    @property
    def is_ready(self) -> bool:
        """Whether there is an engine, and new requests are accepted."""
        return self.state is EngineState.READY

    @property
    def counters(self) -> Counters:
        return self._accounts.counters

    @property
    def info(self) -> Ready | None:
        """An engine's description of itself; None until the first is ready, kept while restarting."""
        return next((engine.info for engine in self._engines if engine.info), None)

    @property
    def stats(self) -> EngineStats:
        """The engine's state after its latest step."""
        return next((engine.stats for engine in self._engines), EngineStats())

    @property
    def speed(self) -> Speed:
        """How fast answers are generated."""
        return next((engine.capacity.speed for engine in self._engines), self._first_capacity.speed)

    @property
    def loading(self) -> Loading | None:
        """How far loading has come; None while no engine is loading."""
        return next((engine.loading for engine in self._engines if engine.loading), None)

    @property
    def restarts(self) -> int:
        """The number of engine processes that died."""
        return sum(engine.restarts for engine in self._engines)

    @property
    def trouble(self) -> str | None:
        """How an engine died that is not back yet: a clause fit for clients."""
        return next((engine.trouble for engine in self._engines if engine.trouble), None)

    @property
    def engine_pid(self) -> int | None:
        """The process id of the first engine, for logs and tests."""
        return next((engine.pid for engine in self._engines), None)

    @property
    def _engines(self) -> Sequence[EngineHandle]:
        return list(self._fleet.engines.values())

    def engines(self) -> list[EngineView]:
        """A snapshot of each engine, in the order of their ids."""
        return [engine.view(self._admission.tokens_owed(self._load_of(engine))) for engine in self._engines]

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every event of every request, after counting it. It must be fast and not raise."""
        self._accounts.subscribe(listener)

    # --- its life

    async def start(self) -> None:
        """Start the engines. Returns at once; `wait_ready` waits until they are loaded."""
        self._fleet.start()

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
        await self.drain(self._drain_timeout)
        for request_id in list(self._accounts.unfinished):
            self.abort(request_id)
        self._stopped = True
        self._loaded.set()
        await self._fleet.stop()

    # --- requests

    def generate(self, request: GenerateRequest, terms: Terms = NO_TERMS) -> TokenStream:
        """Accept a request and return its stream. The same as `generate_all` of one."""
        return self.generate_all([request], terms)[0]

    def generate_all(self, requests: Sequence[GenerateRequest], terms: Terms = NO_TERMS) -> list[TokenStream]:
        """Accept requests that belong together and return their streams, or refuse all of them now.

        Each `request_id` must be unique among the requests of this server's life. A request with `output_token_ids`
        goes on after them; the stream has those that come then. A request whose turn does not come within
        `terms.first_token` seconds ends with Overloaded.

        Raises:
            Overloaded: they would have to wait longer than `terms` allows, or there are too many.
            NotReady: there is no engine to wait for.
            ContextLengthExceeded: a prompt is too long.
        """
        counters = self._accounts.counters
        counters.received += len(requests)
        try:
            self._check(requests)
            predicted = self._admission.admit(requests, terms, self._load)
        except AntiphonError:
            counters.refused += len(requests)
            raise
        accepted = [self._accept(request, terms) for request in requests]
        self._fleet.place(accepted)
        for unfinished in accepted:
            unfinished.stream.predicted_wait = predicted.first_token
        return [unfinished.stream for unfinished in accepted]

    def _accept(self, request: GenerateRequest, terms: Terms) -> Unfinished:
        stream = TokenStream(request.request_id, self.abort)
        unfinished = Unfinished(request, stream, [*request.output_token_ids], terms)
        unfinished.generation = self._fleet.generation
        if terms.first_token < inf:
            loop = asyncio.get_running_loop()
            grace = max(0.5, 2 * self.stats.step_seconds)  # it cannot begin before the current step has ended
            unfinished.expiry = loop.call_later(terms.first_token + grace, self._expire, unfinished)
        self._accounts.accept(unfinished)
        return unfinished

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request now; its stream gets the terminal event, the engine frees its blocks within a step.

        Unknown ids are ignored, since the request may just have ended.
        """
        if unfinished := self._accounts.unfinished.get(request_id):
            self._fleet.withdraw(unfinished)
            self._accounts.deliver(unfinished, TokenEvent(request_id, finish_reason=reason))

    @property
    def tokens_owed(self) -> float:
        """Tokens still to be computed for all unfinished requests: of prompts, and expected ones of answers."""
        return self._admission.tokens_owed(self._load)

    @property
    def _load(self) -> Load:
        engine = next(iter(self._engines), None)
        capacity = engine.capacity if engine else self._first_capacity
        return Load(capacity, self._accounts.unfinished.values(), self._context_length)

    def _load_of(self, engine: EngineHandle) -> Load:
        return Load(engine.capacity, engine.requests.values(), self._context_length)

    @property
    def _context_length(self) -> int:
        return self.info.context_length if self.info else 0

    def _check(self, requests: Sequence[GenerateRequest]) -> None:
        """Raise NotReady or ContextLengthExceeded if these cannot be computed here."""
        match self.state:
            case EngineState.LOADING:
                raise NotReady("The model is still loading.", retry_after=5.0)
            case EngineState.DRAINING | EngineState.STOPPED:
                raise NotReady("The server is shutting down.", retry_after=10.0)
            case EngineState.FAILED:
                raise NotReady("The engine failed and was given up; the server's log says why.", retry_after=30.0)
        for request in requests:
            if len(request.prompt_token_ids) >= self._context_length:
                raise ContextLengthExceeded(len(request.prompt_token_ids), self._context_length)

    def _expire(self, unfinished: Unfinished) -> None:
        """End a request whose turn has not come, never one that an engine has begun with."""
        if unfinished.stream.begun_at is None and not unfinished.output_token_ids:
            self._fleet.withdraw(unfinished)
            load = self._load
            load.capacity.forget_forecast()
            others = [each for each in load.unfinished if each is not unfinished]
            self._accounts.fail(unfinished, self._admission.give_up(unfinished, replace(load, unfinished=others)))

    def _note_if_drained(self) -> None:
        if self._draining and not self._accounts.unfinished:
            self._drained.set()

    # --- what the accounts call

    def request_answered(self, unfinished: Unfinished, num_cached_tokens: int) -> None:
        self._admission.note_first(unfinished, num_cached_tokens)

    def request_ended(self, unfinished: Unfinished, reason: FinishReason) -> None:
        self._fleet.forget(unfinished)
        self._admission.note_end(unfinished, reason)
        self._load.capacity.forget_forecast()
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

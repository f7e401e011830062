"""The front's view of the engine: give it a request, iterate over its tokens.

Owns the streams of all unfinished requests and their counts; `admission` decides which are accepted. At every moment,
received = refused + accepted, and accepted = finished + aborted + failed + running. Each accepted request ends with
exactly one terminal event. If an engine dies, the next one gets every unfinished request again, with the tokens that
were already received, and the streams continue (`unfinished`). The supervisor owns the engine's process. This module
does not know HTTP, text or scheduling.

Everything here runs on one asyncio loop, which must be that of the main thread, since the engine dies with the thread
that started it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.admission import Admission, Load
from antiphon.engine.capacity import Capacity
from antiphon.engine.speed import Speed
from antiphon.engine.stream import TokenStream
from antiphon.engine.supervisor import EngineDeath, Supervisor
from antiphon.engine.unfinished import Unfinished
from antiphon.engine.wire import Abort, AddRequest, EngineStats, FromEngine, Loading, Ready, StepReport
from antiphon.errors import (
    AntiphonError,
    CheckpointError,
    ContextLengthExceeded,
    EngineDied,
    EngineError,
    NotReady,
)
from antiphon.grammar import Vocabulary
from antiphon.request import FinishReason, GenerateRequest, Terms, TokenEvent

__all__ = ["Counters", "EngineClient", "EngineState", "Listener", "TokenStream"]

Listener = Callable[[TokenEvent], None]

NO_TERMS = Terms()

_TOKENS_AT_ONCE = 100_000  # handed over before other tasks of the event loop run, which takes some milliseconds


class EngineState(StrEnum):
    """The state of the engine, as the front knows it."""

    LOADING = "loading"  # the first engine is not ready yet; requests are refused
    READY = "ready"
    RESTARTING = (
        "restarting"  # an engine died (`EngineClient.trouble`); requests are accepted, and wait for the next one
    )
    DRAINING = "draining"  # new requests are refused; running ones continue
    FAILED = "failed"  # given up; `EngineClient.error` says why
    STOPPED = "stopped"


@dataclass(slots=True)
class Counters:
    """Numbers of requests since the client was created. All but `running` only grow."""

    received: int = 0
    refused: int = 0
    accepted: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    running: int = 0  # accepted and not ended, whether being computed or waiting


class EngineClient:
    """The interface to the engine. The server creates, starts and stops it.

    `info` is the engine's description of itself (None until the first is ready, kept while restarting), `stats` the
    state after its latest step, `loading` how far loading has come, `restarts` the number of engines that died,
    `trouble` how the last one died (a clause fit for clients; None once the next is ready), `error` why it was given up
    (with EngineState.FAILED), `counters` the accounts.
    """

    def __init__(self, engine: EngineConfig, server: ServerConfig, vocabulary: Vocabulary | None = None) -> None:
        """`vocabulary`: the model's, for requests with a grammar, which fail without it."""
        self.info: Ready | None = None
        self.stats = EngineStats()
        self.loading: Loading | None = None
        self.restarts = 0
        self.trouble: str | None = None
        self.error: AntiphonError | None = None
        self.counters = Counters()
        self.max_num_sequences = engine.max_num_sequences  # answers computed at the same time
        self._admission = Admission(server.max_queued_requests)
        self._capacity = Capacity(engine)
        self._drain_timeout = server.drain_timeout
        self._supervisor = Supervisor(engine, server.hang_timeout, self, vocabulary)
        self._unfinished: dict[str, Unfinished] = {}  # in order of arrival
        self._listeners: list[Listener] = []
        self._connected = False  # an engine is ready and accepts requests
        self._handing_over = False  # it is still getting the requests that were accepted before it was ready
        self._draining = False
        self._stopped = False
        self._loaded = asyncio.Event()  # the first engine is ready, or never will be
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
        if self._connected:
            return EngineState.READY
        return EngineState.RESTARTING if self.info else EngineState.LOADING

    @property
    def is_ready(self) -> bool:
        """Whether there is an engine, and it accepts new requests."""
        return self.state is EngineState.READY

    @property
    def engine_pid(self) -> int | None:
        """The process id of the running engine, for logs and tests."""
        return self._supervisor.pid

    @property
    def speed(self) -> Speed:
        """How fast answers are generated."""
        return self._capacity.speed

    @property
    def has_work(self) -> bool:
        """Whether there are unfinished requests."""
        return bool(self._unfinished)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every event of every request, after counting it. It must be fast and not raise."""
        self._listeners.append(listener)

    # --- its life

    async def start(self) -> None:
        """Start the first engine. Returns at once; `wait_ready` waits until it is loaded."""
        self._supervisor.start()

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
        return not self._unfinished

    async def stop(self) -> None:
        """Drain for `drain_timeout`, abort what is left and stop the engine. A second call meanwhile stops at once."""
        if self._draining:
            self._drained.set()
        await self.drain(self._drain_timeout)
        for request_id in list(self._unfinished):
            self.abort(request_id)
        self._stopped = True
        self._loaded.set()
        await self._supervisor.stop()

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
        self.counters.received += len(requests)
        try:
            self._check(requests)
            predicted = self._admission.admit(requests, terms, self._load)
        except AntiphonError:
            self.counters.refused += len(requests)
            raise
        streams = [self._accept(request, terms) for request in requests]
        for stream in streams:
            stream.predicted_wait = predicted.first_token
        return streams

    def _accept(self, request: GenerateRequest, terms: Terms) -> TokenStream:
        assert request.request_id not in self._unfinished, f"request {request.request_id} runs already"
        self.counters.accepted += 1
        self.counters.running += 1
        stream = TokenStream(request.request_id, self.abort)
        unfinished = Unfinished(request, stream, [*request.output_token_ids], terms)
        if terms.first_token < inf:
            loop = asyncio.get_running_loop()
            grace = max(0.5, 2 * self.stats.step_seconds)  # it cannot begin before the current step has ended
            unfinished.expiry = loop.call_later(terms.first_token + grace, self._expire, unfinished)
        self._unfinished[request.request_id] = unfinished
        if self._connected and not self._handing_over:  # else it gets its turn after those that were accepted before
            self._supervisor.send(AddRequest(unfinished.hand_over()))
        return stream

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request now; its stream gets the terminal event, the engine frees its blocks within a step.

        Unknown ids are ignored, since the request may just have ended.
        """
        if unfinished := self._unfinished.get(request_id):
            if unfinished.is_handed_over:
                self._supervisor.send(Abort(request_id))
            self._deliver(unfinished, TokenEvent(request_id, finish_reason=reason))

    @property
    def tokens_owed(self) -> float:
        """Tokens still to be computed for all unfinished requests: of prompts, and expected ones of answers."""
        return self._admission.tokens_owed(self._load)

    @property
    def _load(self) -> Load:
        return Load(self._capacity, self._unfinished.values(), self._context_length)

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
            if unfinished.is_handed_over:
                self._supervisor.send(Abort(unfinished.request.request_id))
            others = [each for each in self._unfinished.values() if each is not unfinished]
            self._capacity.forget_forecast()
            load = Load(self._capacity, others, self._context_length)
            self._fail(unfinished, self._admission.give_up(unfinished, load))

    def _hand_over_all(self, engine: int) -> None:
        """Give an engine (the one after so many deaths) the unfinished requests, without blocking the event loop."""
        if not self._connected or engine != self.restarts:
            return  # it has died meanwhile
        num_tokens = 0
        for unfinished in self._unfinished.values():
            if num_tokens > _TOKENS_AT_ONCE:
                asyncio.get_running_loop().call_soon(self._hand_over_all, engine)
                return
            if not unfinished.is_handed_over:
                self._supervisor.send(AddRequest(unfinished.hand_over()))
                num_tokens += unfinished.num_tokens
        self._handing_over = False

    def _deliver(self, unfinished: Unfinished, event: TokenEvent, error: AntiphonError | None = None) -> None:
        """Count an event, and pass it to the stream and the listeners. The last event ends the request."""
        if not (unfinished.output_token_ids or unfinished.num_scored_tokens or event.finish_reason):
            self._admission.note_first(unfinished, event.num_cached_tokens)
        unfinished.take(event)
        if event.finish_reason:
            self._settle(unfinished, event.finish_reason)
        if event.finish_reason is FinishReason.ERROR:
            unfinished.stream.push(error or EngineError(event.error or "The engine failed this request."))
        else:
            unfinished.stream.push(event)
        for listener in self._listeners:
            listener(event)

    def _settle(self, unfinished: Unfinished, reason: FinishReason) -> None:
        del self._unfinished[unfinished.request.request_id]
        self.counters.running -= 1
        match reason:
            case FinishReason.ABORT:
                self.counters.aborted += 1
            case FinishReason.ERROR:
                self.counters.failed += 1
            case _:
                self.counters.finished += 1
        self._admission.note_end(unfinished, reason)
        self._capacity.forget_forecast()
        if unfinished.expiry:
            unfinished.expiry.cancel()
        self._note_if_drained()

    def _fail(self, unfinished: Unfinished, error: AntiphonError) -> None:
        event = TokenEvent(unfinished.request.request_id, finish_reason=FinishReason.ERROR, error=error.message)
        self._deliver(unfinished, event, error)

    def _note_if_drained(self) -> None:
        if self._draining and not self._unfinished:
            self._drained.set()

    # --- what the supervisor calls

    def engine_said(self, message: FromEngine) -> None:
        match message:
            case StepReport(events, stats, begun, progress):
                self.stats = stats
                self._capacity.observe(stats, events)
                for request_id in begun:
                    if unfinished := self._unfinished.get(request_id):
                        unfinished.stream.note_begun(time.monotonic() - stats.step_seconds)
                for report in progress:
                    if unfinished := self._unfinished.get(report.request_id):
                        unfinished.stream.push_progress(report)
                for event in events:
                    if unfinished := self._unfinished.get(event.request_id):  # else it has been aborted
                        self._deliver(unfinished, event)
            case Loading():
                self.loading = message
            case Ready():
                self.info, self.loading, self.trouble = message, None, None
                self._connected = self._handing_over = True
                self._hand_over_all(self.restarts)
                self._loaded.set()

    def engine_died(self, death: EngineDeath) -> None:
        self._connected = self._handing_over = False
        self.restarts += 1
        self.trouble = death.summary
        self.stats, self.loading = EngineStats(), None
        for unfinished in [each for each in self._unfinished.values() if each.is_handed_over]:
            if error := unfinished.note_death(death.working_on):
                self._fail(unfinished, error)

    def engine_given_up(self, error: AntiphonError) -> None:
        self._connected = self._handing_over = False
        self.error = error
        reason = "The engine died and could not be started again."
        if isinstance(error, CheckpointError):  # its message contains paths, so only the log gets it
            reason += " The model's files have changed or are damaged; the server has to be restarted."
        for unfinished in list(self._unfinished.values()):
            self._fail(unfinished, EngineDied(reason))
        self._loaded.set()

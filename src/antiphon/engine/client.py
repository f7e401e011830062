"""The front's view of the engine: give it a request, iterate over its tokens.

Owns the streams of all unfinished requests, the cap on their number and the accounts: received = refused + accepted, and
accepted = finished + aborted + failed + running, at every moment. It promises that each accepted request ends in exactly
one terminal event, whatever happens to engines meanwhile: when one dies, the next gets every unfinished request again
with the tokens already received, and the streams go on. It knows nothing of HTTP, text or scheduling, and leaves the
life of the engine's process to the supervisor.

Everything here runs on one asyncio loop, which must be that of the main thread (the engine dies with the thread that
started it).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.supervisor import Supervisor
from antiphon.engine.wire import Abort, AddRequest, EngineStats, Loading, Ready, StepReport
from antiphon.errors import AntiphonError, ContextLengthExceeded, EngineDied, EngineError, NotReady, Overloaded
from antiphon.request import FinishReason, GenerateRequest, TokenEvent

logger = logging.getLogger(__name__)

Listener = Callable[[TokenEvent], None]

MAX_DEATHS_ON_BOARD = 2  # a request on board of that many deaths is not tried again


class EngineState(StrEnum):
    """What the front can say about its engine."""

    LOADING = "loading"  # the first engine is not ready yet; requests are refused
    READY = "ready"
    RESTARTING = "restarting"  # an engine died; requests are accepted and wait for the next one
    DRAINING = "draining"  # no new requests; running ones go on
    FAILED = "failed"  # given up; `EngineClient.error` says why
    STOPPED = "stopped"


@dataclass(slots=True)
class Counters:
    """The accounts, in requests, since the client was made. They only grow, but for `running`."""

    received: int = 0
    refused: int = 0
    accepted: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    running: int = 0  # accepted and not ended, whether computing or waiting


class TokenStream:
    """The tokens of one accepted request: an async iterator of TokenEvents that ends after the terminal one.

    Close it (`aclose`, or use it as an async context manager) when you stop early: closing an unfinished stream aborts
    its request. A cancelled wait for the next token aborts too, so a vanished client never leaves a request behind; to
    wait with a time limit and go on, use `asyncio.wait`, which does not cancel. Iterating raises EngineError where the
    request failed, EngineDied where engines died under it; both count as its terminal event.
    """

    def __init__(self, client: EngineClient, request: GenerateRequest) -> None:
        self.request_id = request.request_id
        self._client = client
        self._events: asyncio.Queue[TokenEvent | EngineError] = asyncio.Queue()  # max_tokens long at most
        self._exhausted = False

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> TokenEvent:
        if self._exhausted:
            raise StopAsyncIteration
        try:
            event = await self._events.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if isinstance(event, EngineError):
            self._exhausted = True
            raise event
        self._exhausted = event.finish_reason is not None
        return event

    def push(self, event: TokenEvent | EngineError) -> None:
        """For the client alone: the next thing the reader sees."""
        self._events.put_nowait(event)

    async def aclose(self) -> None:
        """Stop reading; abort the request if it is still running. Idempotent."""
        self._exhausted = True
        self._client.abort(self.request_id)

    async def __aenter__(self) -> TokenStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class EngineClient:
    """The one way to the engine; made, started and stopped by whoever serves."""

    config: EngineConfig
    info: Ready | None  # the engine's own description; None until the first is ready, kept while restarting
    stats: EngineStats  # the latest
    loading: Loading | None  # the latest progress while loading
    restarts: int  # engines started after the first
    error: AntiphonError | None  # with EngineState.FAILED: why
    counters: Counters

    def __init__(self, engine: EngineConfig, server: ServerConfig) -> None: ...

    @property
    def state(self) -> EngineState: ...

    @property
    def is_ready(self) -> bool:
        """Whether `generate` would accept a request (but for the cap)."""
        ...

    @property
    def engine_pid(self) -> int | None:
        """Process id of the engine that is alive, for logs and tests."""
        ...

    def subscribe(self, listener: Callable[[TokenEvent], None]) -> None:
        """Call `listener` with every event of every request, after it is counted; it must be quick and not raise."""
        ...

    async def start(self) -> None:
        """Start the first engine; returns at once, loading goes on behind (`wait_ready`)."""
        ...

    async def wait_ready(self) -> Ready:
        """Wait until the engine takes requests; raises why not (CheckpointError, EngineDied …) when it is given up."""
        ...

    def generate(self, request: GenerateRequest) -> TokenStream:
        """Accept a request and return its stream, or refuse it now: Overloaded, NotReady, ContextLengthExceeded.

        `request_id` must be unique among the requests of this server's life.
        """
        ...

    def abort(self, request_id: str) -> None:
        """End a request: its stream gets an ABORT event, the engine frees its blocks within a step. Unknown: no-op."""
        ...

    async def drain(self, timeout: float) -> bool:
        """Refuse new requests and wait for the running ones, `timeout` seconds at most; whether all ended."""
        ...

    async def stop(self) -> None:
        """Drain for `drain_timeout`, abort what is left, end the engine. A second call, or one after, is immediate."""
        ...

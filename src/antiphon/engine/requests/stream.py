"""The tokens of one accepted request, as their reader sees them.

Owns the events that have arrived and were not read yet, at most max_tokens of them. They are in order, the terminal one
last. A reader that stops early ends the request. This module does not know other streams or the engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from antiphon.errors import AntiphonError
from antiphon.request import FinishReason, RequestProgress, TokenEvent


@dataclass(frozen=True, slots=True)
class EngineChange:
    """An engine got the request, or had it no longer before the request had ended."""

    at: float  # time.monotonic()
    what: Literal["given", "died", "moved"]  # died: the engine; moved: an operator has stopped the engine
    engine_id: int


class TokenStream:
    """An async iterator of TokenEvents that ends after the terminal one.

    If you stop early, close it (`aclose`, or use it as an async context manager): closing an unfinished stream aborts
    its request. Cancelling the wait for the next token aborts it too, so a client that disconnects leaves no request
    running. To wait with a time limit, use `asyncio.wait`, which does not cancel. Instead of the terminal event,
    iterating raises EngineError if the request failed, EngineDied if engines died while working on it, and Overloaded
    if its turn did not come in time.
    """

    def __init__(self, request_id: str, end: Callable[[str, FinishReason], None]) -> None:
        """`end` ends the request if it is still running; it is the client's `abort`."""
        self.request_id = request_id
        self._end = end
        self._events: asyncio.Queue[TokenEvent | AntiphonError] = asyncio.Queue()
        self._listener: Callable[[TokenEvent | AntiphonError], None] | None = None
        self._progress_listener: Callable[[RequestProgress], None] | None = None
        self._exhausted = False
        self.predicted_wait: float | None = None  # seconds until the first token, as predicted when it was accepted
        self.begun_at: float | None = None  # time.monotonic() when an engine began to compute it
        self.engine_changes: list[EngineChange] = []  # in order
        # Of the engine that the last token came from or, before the first, that has the request; empty: it has none.
        self.system_fingerprint: str | None = None
        self.is_inexact = False  # engines with different arithmetic have computed it

    def note_begun(self, now: float) -> None:
        """For `EngineClient` only: an engine has begun to compute the request. Later engines change nothing."""
        self.begun_at = now if self.begun_at is None else self.begun_at

    def note_engine(self, what: Literal["given", "died", "moved"], engine_id: int) -> None:
        """For the engines only: one of them has got the request, or has it no longer."""
        self.engine_changes.append(EngineChange(time.monotonic(), what, engine_id))

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
        if isinstance(event, AntiphonError):
            self._exhausted = True
            raise event
        self._exhausted = event.finish_reason is not None
        return event

    def push(self, event: TokenEvent | AntiphonError) -> None:
        """For `EngineClient` only: the next event for the reader."""
        if self._listener is not None:
            self._listener(event)
        else:
            self._events.put_nowait(event)

    def push_progress(self, progress: RequestProgress) -> None:
        """For `EngineClient` only: the request's progress. Without a listener it is dropped."""
        if self._progress_listener is not None:
            self._progress_listener(progress)

    def listen(
        self,
        listener: Callable[[TokenEvent | AntiphonError], None],
        on_progress: Callable[[RequestProgress], None] | None = None,
    ) -> None:
        """Call `listener` with each event as it comes, until `close`, instead of iterating.

        That costs no task, and no turn of the event loop. Events that wait are passed at once. `on_progress` gets what
        comes before the first token, if the request reports progress. The listeners must be fast and not raise.
        """
        self._listener, self._progress_listener = listener, on_progress
        while not self._events.empty() and self._listener is not None:
            listener(self._events.get_nowait())

    def close(self) -> None:
        """Stop reading, and abort the request if it is still running. Idempotent."""
        self._exhausted = True
        self._listener = self._progress_listener = None
        self._end(self.request_id, FinishReason.ABORT)

    def finish(self) -> None:
        """End the request as finished, not aborted: the reader has all it needs, for example up to a stop string."""
        self._end(self.request_id, FinishReason.STOP)

    def cut(self) -> None:
        """End the request as cut at its limit: the reader gets no more than it has."""
        self._end(self.request_id, FinishReason.LENGTH)

    async def aclose(self) -> None:
        """Like `close`; the name that async iterators use."""
        self.close()

    async def __aenter__(self) -> TokenStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

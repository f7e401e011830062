"""Responses that are generated whether or not a client reads them: `background: true`.

Owns one task for each running response. It ends exactly once: completed, incomplete, failed or cancelled. Then the
response is stored with its events, before any reader gets the last of them. Any number of readers may follow the events
from any number on; a reader that leaves, or reads slowly, changes nothing. Memory for the response is reserved in the
store: what a usual answer needs before it begins, and more while it grows.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterable, Iterator

from antiphon.api.errors import internal_error
from antiphon.api.events import COMMENT, MEDIA_TYPE, error_event
from antiphon.api.generation import Generation
from antiphon.api.pieces import Progress
from antiphon.api.response_store import OVERHEAD, Kept, ResponseStore
from antiphon.api.responses import shapes
from antiphon.api.responses.event_log import EventLog
from antiphon.api.responses.writer import ResponseWriter
from antiphon.api.shapes import encoder
from antiphon.errors import AntiphonError, InvalidRequest, NotReady, Overloaded

_USUAL_TOKENS, _BYTES_PER_TOKEN = 4096, 32  # for which memory is reserved before a response begins
_FEW_EVENTS_BYTES = 16 << 10  # for the events of a short response that are not deltas
_COPIES = 3  # a text is in the log, in the response, and in the conversation for later turns
_MORE_BYTES = 64 << 10  # reserved at a time while a response grows

logger = logging.getLogger(__name__)


class Memory:
    """The memory that is reserved in the store for one response."""

    def __init__(self, store: ResponseStore, id: str, base_bytes: int, max_tokens: int) -> None:
        """Reserve `base_bytes` (of the request and the empty response), and some for its text.

        Raises:
            InvalidRequest: the store is too small for such a response.
            Overloaded: other running responses use the memory.
        """
        self._store, self._id = store, id
        self._base_bytes = base_bytes + OVERHEAD + _FEW_EVENTS_BYTES
        self._reserved = self._base_bytes + min(max_tokens, _USUAL_TOKENS) * _BYTES_PER_TOKEN
        if self._reserved > store.max_bytes:
            raise InvalidRequest(
                f"A background response needs {self._reserved:,} bytes of memory for a request like this one, and this "
                f"server has {store.max_bytes:,} (--max-stored-bytes). Leave out 'background', or ask for less.",
                param="background",
            )
        if not store.reserve(id, self._reserved):
            message = "The memory for background responses is used by others that are running; please try again later."
            raise Overloaded(message, retry_after=5.0)

    def hold(self, log_bytes: int) -> None:
        """Reserve more if a log of so many bytes needs it. Raises Overloaded if there is no more."""
        needed = self._base_bytes + _COPIES * log_bytes
        if needed <= self._reserved:
            return
        if not self._store.reserve(self._id, needed + _MORE_BYTES):
            raise Overloaded("The memory for background responses (--max-stored-bytes) is full, so this one was ended.")
        self._reserved = needed + _MORE_BYTES


class BackgroundResponse:
    """One response that is generated in the background; create it inside an event loop."""

    def __init__(
        self,
        store: ResponseStore,
        writer: ResponseWriter,
        generation: Generation,
        memory: Memory,
        *,
        key: str,
        sent: bytes,
        before: Kept | None,
    ) -> None:
        """Begin to generate.

        Args:
            store: where the response is found while it runs, and is stored at its end.
            writer: writes the response.
            generation: the accepted request.
            memory: what is reserved for it.
            key: the name of the API key.
            sent: the items of the request, a JSON array without its brackets.
            before: the response that it continues.
        """
        self.key = key
        self._store = store
        self._writer = writer
        self._generation = generation
        self._generation.max_unread_tokens = sys.maxsize  # the reader is a task here, which is late only in a burst
        self._memory = memory
        self._sent = sent
        self._before = before
        self._log = EventLog()
        self._news = asyncio.Event()
        self._has_begun = self._is_over = False
        self._append([shapes.Created(response=writer.response), shapes.Queued(response=writer.response)])
        store.run(self.id, self)
        self._task = asyncio.create_task(self._generate())

    @property
    def id(self) -> str:
        """The response's id."""
        return self._writer.response.id

    @property
    def conversation(self) -> list[bytes]:
        """The items of every earlier turn, and those of the request."""
        return [*(self._before.conversation if self._before else ()), b"[" + self._sent + b"]"]

    def snapshot(self) -> bytes:
        """The response so far, as JSON."""
        if self._is_over:
            return encoder.encode(self._writer.response)
        return encoder.encode(self._writer.so_far("in_progress" if self._generation.has_begun else "queued"))

    async def follow(self, first: int) -> AsyncIterator[bytes]:
        """The events from number `first` on: those of the past, then the others as they are generated."""
        while True:
            news = self._news
            while first < len(self._log):
                chunk, first = self._log.chunk(first, self._writer.response)
                yield chunk
                await asyncio.sleep(0)  # sending does not wait while the socket's buffer has room
            if self._is_over and first >= len(self._log):
                return
            await news.wait()

    def cancel(self) -> None:
        """End it now; nothing happens if it has ended."""
        if not self._is_over:
            self._end(self._writer.stop(None, self._generation))
            self._task.cancel()

    async def _generate(self) -> None:
        async with self._generation:
            try:
                await self._write()
            except AntiphonError as error:
                self._fail(error)
            except asyncio.CancelledError:  # by `cancel`, or because the event loop is being closed
                self._fail(NotReady("The server stopped before this answer was complete."))
            except Exception:
                logger.exception("unexpected error in a background response")
                self._fail(internal_error())

    async def _write(self) -> None:
        writer, generation = self._writer, self._generation
        async for item in generation.with_progress():
            if not self._has_begun and not (isinstance(item, Progress) and item.position):
                self._has_begun = True
                self._append([shapes.InProgress(response=writer.response)])
            self._append(writer.push(item, generation))
            self._memory.hold(self._log.num_bytes)
        self._end(writer.close(generation))

    def _fail(self, error: AntiphonError) -> None:
        if not self._is_over:
            self._generation.fail(error)
            self._end(self._writer.stop(error, self._generation))

    def _end(self, last: Iterator[shapes.Event]) -> None:
        self._generation.close()
        for event in last:
            self._log.append(event)
        self._is_over = True
        self._log.append(self._writer.end())
        body, items = encoder.encode(self._writer.response), self._writer.conversation(self._sent)
        asked = b"[" + self._sent + b"]" if self._writer.continues else None
        self._store.keep(self.id, body, items, self._before, asked=asked, key=self.key, history=self._log)
        self._announce()

    def _append(self, events: Iterable[shapes.Event]) -> None:
        for event in events:
            self._log.append(event)
        self._announce()

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Follower:
    """Sends the events of a background response to one reader."""

    media_type, last, keep_alive = MEDIA_TYPE, b"", COMMENT

    def failed(self, error: AntiphonError) -> bytes:
        """The message that ends a stream whose events cannot be sent. The response itself has not failed."""
        return error_event(error)

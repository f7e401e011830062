"""Sends streams of server-sent events, and notices when the client disconnects.

Owns the headers that keep proxies from buffering a stream. A generation is aborted as soon as the connection closes,
even between tokens. A stream is never silent for long. A failure after the headers have been sent reaches the client as
an error event. This module does not know the content of the events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from antiphon.api.errors import internal_error
from antiphon.api.exchange import StreamFormat
from antiphon.errors import AntiphonError

R = TypeVar("R")

KEEP_ALIVE_SECONDS = 10.0  # of silence: a long prompt or queue may take longer than a proxy's time-out

logger = logging.getLogger(__name__)


class EventStream(Response):
    """Sends the parts of a streamed answer as they are generated, until the client disconnects."""

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        format: StreamFormat,
        generation: AbstractAsyncContextManager[Any] | None = None,
    ) -> None:
        """`generation` is left, and so aborted, when the client disconnects."""
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type=format.media_type)
        del self.headers["content-length"]
        self._parts, self._format, self._generation = parts, format, generation or nullcontext()
        self._sent_at = 0.0  # when something was last sent, in time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._generation:
            await until_disconnect(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._sent_at = time.monotonic()
        pinging = asyncio.create_task(self._fill_silence(send))
        try:
            await self._send_events(send)
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)
        await send({"type": "http.response.body", "body": self._format.last, "more_body": False})

    async def _send_events(self, send: Send) -> None:
        try:
            async for chunk in self._parts:
                await self._send(send, chunk)
        except AntiphonError as error:
            await self._send(send, self._format.failed(error))
        except Exception:
            logger.exception("unexpected error in a stream")
            await self._send(send, self._format.failed(internal_error()))

    async def _send(self, send: Send, chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._sent_at = time.monotonic()

    async def _fill_silence(self, send: Send) -> None:
        while True:
            rest = self._sent_at + KEEP_ALIVE_SECONDS - time.monotonic()
            if not self._format.keep_alive:
                return
            if rest <= 0:
                await self._send(send, self._format.keep_alive)
            else:
                await asyncio.sleep(rest)


async def answer_or_disconnect(
    request: Request, context: AbstractAsyncContextManager[Any], work: Coroutine[Any, Any, bytes]
) -> Response:
    """Run `work` inside `context` and return its JSON as a response; cancel it if the client disconnects first."""
    async with context:
        body = await until_disconnect(request.receive, work)
    # If the client has disconnected, it does not get this response; the access log shows nginx's status 499.
    return Response(body, 499 if body is None else 200, media_type="application/json")


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, R]) -> R | None:
    """Run `work` to its end, or cancel it when the connection closes; then the result is None.

    Only for requests whose body has been read: after it, `receive` has nothing to say but that the client left.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

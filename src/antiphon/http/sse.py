"""Server-sent events, and noticing that the reader has left.

Owns the framing of a stream (`data: …`, `[DONE]` once at the end where clients wait for it) and the headers that keep
proxies from holding it back. It promises that a generation is left, and so aborted, as soon as the connection closes,
whether or not a token is due; that a stream is never silent for long; and that a failure after the headers have gone
out reaches the client as an error event. It must not know what the events say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from antiphon.errors import AntiphonError
from antiphon.http.errors import error_body, internal_error

R = TypeVar("R")

_DONE = b"data: [DONE]\n\n"
_COMMENT = b": still at it\n\n"  # which clients skip
KEEP_ALIVE_SECONDS = 10.0  # of silence; a long prompt, or a long queue, may outlast a proxy's patience

logger = logging.getLogger(__name__)


def event(payload: bytes) -> bytes:
    """One event that carries one line of JSON."""
    return b"data: " + payload + b"\n\n"


def named_event(name: str, payload: bytes) -> bytes:
    """One event with a name of its own, for those who listen by name."""
    return b"event: " + name.encode() + b"\n" + event(payload)


def _error_event(error: AntiphonError) -> bytes:
    return event(error_body(error))


class EventStream(Response):
    """Sends `events`, each as soon as it is there, while holding `context`; leaves both when the client goes away.

    `failed` makes the event that tells of a failure, `last` is sent at the end in any case, `keep_alive` after each
    silence of KEEP_ALIVE_SECONDS.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        context: AbstractAsyncContextManager[Any],
        events: AsyncIterator[bytes],
        *,
        failed: Callable[[AntiphonError], bytes] = _error_event,
        last: bytes = _DONE,
        keep_alive: bytes = _COMMENT,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._context = context
        self._events = events
        self._failed = failed
        self._last = last
        self._keep_alive = keep_alive
        self._sent_at = 0.0  # the loop's time of what was sent last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._context:
            await until_disconnect(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._sent_at = asyncio.get_running_loop().time()
        pinging = asyncio.create_task(self._fill_silence(send))
        try:
            await self._send_events(send)
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)
        await send({"type": "http.response.body", "body": self._last, "more_body": False})

    async def _send_events(self, send: Send) -> None:
        try:
            async for chunk in self._events:
                await self._send(send, chunk)
        except AntiphonError as error:
            await self._send(send, self._failed(error))
        except Exception:
            logger.exception("unexpected error in a stream")
            await self._send(send, self._failed(internal_error()))

    async def _send(self, send: Send, chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._sent_at = asyncio.get_running_loop().time()

    async def _fill_silence(self, send: Send) -> None:
        while True:
            rest = self._sent_at + KEEP_ALIVE_SECONDS - asyncio.get_running_loop().time()
            if rest <= 0:
                await self._send(send, self._keep_alive)
            else:
                await asyncio.sleep(rest)


async def answer_or_disconnect(
    request: Request, context: AbstractAsyncContextManager[Any], work: Coroutine[Any, Any, bytes]
) -> Response:
    """`work`'s JSON as a response, made while holding `context`; cancelled when the client goes away first."""
    async with context:
        body = await until_disconnect(request.receive, work)
    # Nobody reads this where the client has gone; 499 is nginx's word for it, for the access log.
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

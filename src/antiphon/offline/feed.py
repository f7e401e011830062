"""Values produced on the engine's event loop, for a reader in another thread or on another loop.

Owns the values that were not read yet. It promises them in order, followed by the end or the error that ended them.
Closing it never waits, and ends whatever produces the values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from antiphon.api.context import Context
from antiphon.offline.background import Background

T = TypeVar("T")


class Feed(Generic[T]):
    """One reader's values."""

    def __init__(self, background: Background, values: Callable[[Context], AsyncIterator[T]]) -> None:
        self._background = background
        self._queue: asyncio.Queue[T | Exception | None] = asyncio.Queue()
        self._filling = background.submit(lambda context: self._fill(values(context)))

    def next(self) -> Future[T | None]:
        """The next value; None at the end."""
        return self._background.submit(lambda _: self._take())

    def close(self) -> None:
        """Stop producing values."""
        self._filling.cancel()

    async def _fill(self, values: AsyncIterator[T]) -> None:
        try:
            async for value in values:
                self._queue.put_nowait(value)
            self._queue.put_nowait(None)
        except Exception as error:  # raised to the reader
            self._queue.put_nowait(error)

    async def _take(self) -> T | None:
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

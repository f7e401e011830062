"""Threads for work on text, so that long texts delay neither the event loop nor other clients' short texts.

There are two pools, so short texts never wait for long ones. Each key runs one long job at a time. Its other long jobs
wait in order of arrival, and do not occupy a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from pydantic import BaseModel

from antiphon.errors import Overloaded

LONG_CHARACTERS = 64 << 10  # a text of this length takes about ten milliseconds; longer ones are long work
_VALUE_CHARACTERS = 8  # validating a value costs about as much as this many characters
_MANY_TOKENS = 200  # with twenty alternatives each, they take about ten milliseconds to write
_SHORT_THREADS = 2
_LONG_THREADS = 2

P = ParamSpec("P")
R = TypeVar("R")


def is_long(*values: object) -> bool:
    """Whether work on these JSON values, or on pydantic models of them, is long; stops as soon as that is clear."""
    rest = LONG_CHARACTERS
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        rest -= _VALUE_CHARACTERS
        if isinstance(value, str):
            rest -= len(value)
        elif isinstance(value, list | dict):
            rest -= _VALUE_CHARACTERS * len(value)
            if rest > 0:
                waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, BaseModel):
            waiting.extend(value.__dict__.values())
        if rest <= 0:
            return True
    return False


@dataclass(slots=True)
class _Turns:
    """The long jobs of one key."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_jobs: int = 0  # running and waiting


class TextThreads:
    """Runs functions in threads, for one event loop."""

    def __init__(self, max_waiting: int) -> None:
        """`max_waiting` limits the long jobs of one key, including the running one; it may be changed."""
        self._short = ThreadPoolExecutor(_SHORT_THREADS, thread_name_prefix="text")
        self._long = ThreadPoolExecutor(_LONG_THREADS, thread_name_prefix="long-text")
        self.max_waiting = max_waiting
        self._turns: dict[str, _Turns] = {}

    def submit(self, work: Callable[[], R]) -> Future[R]:
        """Begin short work whose result is looked at later. Raises RuntimeError after `close`."""
        return self._short.submit(work)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run short work."""
        return await asyncio.get_running_loop().run_in_executor(self._short, lambda: work(*args, **kwargs))

    async def run_long(self, key: str, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` after the earlier long jobs of `key`.

        Raises:
            Overloaded: too many of them are waiting.
        """
        turns = self._turns.setdefault(key, _Turns())
        if turns.num_jobs >= self.max_waiting:
            raise Overloaded(f"{turns.num_jobs} long requests are waiting to be read; try again later.")
        turns.num_jobs += 1
        try:
            await turns.lock.acquire()
        except BaseException:
            self._leave(key, turns)
            raise

        def end(_: object) -> None:
            turns.lock.release()
            self._leave(key, turns)

        # The caller may be cancelled, but the thread continues, and the turn only ends when it is done.
        job = asyncio.get_running_loop().run_in_executor(self._long, lambda: work(*args, **kwargs))
        job.add_done_callback(end)
        return await asyncio.shield(job)

    async def if_many(self, num_tokens: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work`, which writes the log-probabilities of `num_tokens` tokens: in a thread if there are many."""
        if num_tokens > _MANY_TOKENS:
            return await self.run(work, *args, **kwargs)
        return work(*args, **kwargs)

    def close(self) -> None:
        """Accept no more work; running work continues to its end."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, key: str, turns: _Turns) -> None:
        turns.num_jobs -= 1
        if not turns.num_jobs:
            del self._turns[key]

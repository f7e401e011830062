"""Long and short work on text: apart from each other, and one long job for each key at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from antiphon.api.threads import LONG_CHARACTERS, TextThreads, is_long
from antiphon.errors import Overloaded


class Gate:
    """Work that goes on until it is let go; counts how much of it runs at once."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.running = self.most = self.done = 0
        self._lock = threading.Lock()

    def work(self) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.opened.wait(60)
        with self._lock:
            self.running -= 1
            self.done += 1

    async def until_running(self, number: int) -> None:
        async with asyncio.timeout(60):
            while self.running != number:  # noqa: ASYNC110  # threads set no event of the loop
                await asyncio.sleep(0.001)


async def test_long_jobs_of_one_key_run_one_at_a_time():
    threads, gate = TextThreads(10), Gate()
    jobs = [asyncio.create_task(threads.run_long("a", gate.work)) for _ in range(5)]
    await gate.until_running(1)
    await asyncio.sleep(0.05)
    assert gate.running == 1
    gate.opened.set()
    await asyncio.gather(*jobs)
    assert (gate.most, gate.done) == (1, 5)
    threads.close()


async def test_neither_other_keys_nor_short_work_wait_for_them():
    threads, gate = TextThreads(10), Gate()
    jobs = [asyncio.create_task(threads.run_long("a", gate.work)) for _ in range(5)]
    await gate.until_running(1)
    assert await threads.run_long("b", lambda: "long") == "long"
    assert await threads.run(lambda: "short") == "short"
    assert gate.running == 1
    gate.opened.set()
    await asyncio.gather(*jobs)
    threads.close()


async def test_whoever_leaves_takes_no_second_turn_while_the_first_goes_on():
    threads, gate = TextThreads(10), Gate()
    left = asyncio.create_task(threads.run_long("a", gate.work))
    await gate.until_running(1)
    waiting = asyncio.create_task(threads.run_long("a", gate.work))
    await asyncio.sleep(0)
    for job in (left, waiting):
        job.cancel()
    await asyncio.gather(left, waiting, return_exceptions=True)
    next_job = asyncio.create_task(threads.run_long("a", gate.work))
    await asyncio.sleep(0.05)
    assert gate.running == 1
    gate.opened.set()
    await next_job
    assert (gate.most, gate.done) == (1, 2)
    assert not threads._turns
    threads.close()


async def test_too_many_long_jobs_are_refused_and_a_failed_one_gives_its_turn_back():
    threads, gate = TextThreads(2), Gate()
    jobs = [asyncio.create_task(threads.run_long("a", gate.work)) for _ in range(2)]
    await gate.until_running(1)
    with pytest.raises(Overloaded):
        await threads.run_long("a", gate.work)
    gate.opened.set()
    await asyncio.gather(*jobs)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run_long("a", lambda: 1 // 0)
    assert not threads._turns
    threads.close()


def test_what_is_long():
    assert not is_long({"messages": [{"role": "user", "content": "x" * 1000}] * 10, "max_tokens": 5})
    assert is_long({"prompt": "x" * LONG_CHARACTERS})
    assert is_long({"prompt": ["x" * (LONG_CHARACTERS // 4)] * 4})
    assert is_long([0] * (LONG_CHARACTERS // 8))
    assert is_long([[]] * (LONG_CHARACTERS // 16))


async def test_the_log_probabilities_of_many_tokens_are_written_in_a_thread():
    threads = TextThreads(1)
    here = threading.get_ident()
    assert await threads.if_many(20, threading.get_ident) == here
    assert await threads.if_many(2000, threading.get_ident) != here
    threads.close()

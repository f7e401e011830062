"""Applications that replace each other while requests run."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fastapi import FastAPI

from antiphon.http.live import LiveApplication


class Application:
    """Answers a request when it is told to."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.may_end = asyncio.Event()

    async def __call__(self, *_: Any) -> None:
        self.num_begun += 1
        await self.may_end.wait()


async def test_a_request_keeps_its_application_which_is_closed_after_the_last_one():
    first, second, third = Application(), Application(), Application()
    closed: list[str] = []
    live = LiveApplication(cast(FastAPI, first))

    def begin() -> asyncio.Task[None]:
        return asyncio.create_task(live({}, cast(Any, None), cast(Any, None)))

    running = [begin(), begin()]
    await asyncio.sleep(0)
    live.replace(cast(FastAPI, second), lambda: closed.append("first"))
    running.append(begin())
    await asyncio.sleep(0)
    assert (first.num_begun, second.num_begun, closed) == (2, 1, [])
    running[0].cancel()  # its client has left
    await asyncio.sleep(0)
    assert closed == []
    first.may_end.set()
    await asyncio.gather(*running[:2], return_exceptions=True)
    assert closed == ["first"]
    second.may_end.set()
    await running[2]
    live.replace(cast(FastAPI, third), lambda: closed.append("second"))  # nobody uses it
    assert closed == ["first", "second"]
    assert live.current is cast(FastAPI, third)

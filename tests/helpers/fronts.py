"""Helpers of the tests that run real engine processes behind a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from loads import Answer, ask, expected_answer, fake_config
from patience import PATIENCE
from processes import is_gone

from antiphon.config import FakeSettings, ServerConfig
from antiphon.engine.client import Counters, EngineClient, TokenStream
from antiphon.engine.fleet.supervisor import Supervisor
from antiphon.machine import free_memory_bytes
from antiphon.request import GenerateRequest


@asynccontextmanager
async def running_client(
    *,
    max_queued_requests: int = 256,
    hang_timeout: float = 10.0,
    drain_timeout: float = 30.0,
    free_memory: Callable[[], int] = free_memory_bytes,
    **engine: object,
) -> AsyncIterator[EngineClient]:
    """A client whose engine is ready; afterwards nothing is left."""
    server = ServerConfig(
        max_queued_requests=max_queued_requests, hang_timeout=hang_timeout, drain_timeout=drain_timeout
    )
    client = EngineClient(fake_config(**engine), server, free_memory=free_memory)
    await client.start()
    try:
        async with asyncio.timeout(PATIENCE):
            await client.wait_ready()
        yield client
    finally:
        pids = [engine.pid for engine in client.engines() if engine.pid]
        async with asyncio.timeout(PATIENCE):
            await client.drain(0)
            await client.stop()
        assert all(map(is_gone, pids))
        check_accounts(client.counters)


def supervisor_of(client: EngineClient) -> Supervisor:
    """What keeps the client's first engine alive."""
    (engine, *_) = client._fleet.engines.values()
    assert isinstance(engine._supervisor, Supervisor)
    return engine._supervisor


def check_accounts(counters: Counters) -> None:
    assert counters.received == counters.refused + counters.accepted
    assert counters.accepted == counters.finished + counters.aborted + counters.failed + counters.running


async def read(stream: TokenStream) -> Answer:
    """The whole answer; raises what the stream raises."""
    token_ids: list[int] = []
    async with asyncio.timeout(PATIENCE):
        async for event in stream:
            if event.token_id is not None:
                token_ids.append(event.token_id)
            if event.finish_reason:
                return Answer(token_ids, event.finish_reason)
    raise AssertionError("a stream without an end")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # what is waited for need not know of it
            await asyncio.sleep(0.01)


def long_requests(count: int, *, max_tokens: int = 60) -> list[GenerateRequest]:
    return [ask(f"r{n}", [n + 1] * (3 + n), temperature=0.6, seed=n, max_tokens=max_tokens) for n in range(count)]


def expected(request: GenerateRequest) -> Answer:
    return expected_answer(request, FakeSettings(), FakeSettings().context_length)

"""The client with a real engine process: nothing vanishes, cancel is prompt, bounded, drained and stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from fronts import check_accounts, expected, long_requests, read, running_client, until
from loads import ask, fake_config
from open_files import many_files_open
from patience import PATIENCE
from processes import is_gone

from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.errors import ContextLengthExceeded, NotReady, Overloaded
from antiphon.request import FinishReason


async def test_same_under_any_load():
    """Thirty-two at once, over a pool that holds a few of them: each gets what it would get alone."""
    async with running_client(kv_cache_tokens=256, max_num_sequences=8, prefill_chunk=7) as client:
        requests = long_requests(32)
        answers = await asyncio.gather(*(read(client.generate(request)) for request in requests))
        assert answers == [expected(request) for request in requests]
        assert client.stats.num_preemptions > 0
        assert client.counters.finished == 32


async def test_an_engine_runs_in_a_program_with_many_open_files():
    """Its descriptors are beyond 1,023, the last that `select` can wait for."""
    with many_files_open():
        async with running_client() as client:
            request = ask("a", [1, 2])
            assert await read(client.generate(request)) == expected(request)


async def test_what_the_engine_says_of_itself():
    async with running_client(kv_cache_tokens=256, block_size=8) as client:
        info = await client.wait_ready()
        assert (info.num_blocks, info.block_size, info.vocab_size, info.context_length) == (32, 8, 256, 256)
        assert client.is_ready
        assert client.stats.blocks_total == 0  # nothing was asked yet
        await read(client.generate(ask("a", [1] * 20)))
        assert (client.stats.running, client.stats.waiting, client.stats.blocks_in_use) == (0, 0, 0)
        assert client.stats.blocks_free + client.stats.blocks_cached == client.stats.blocks_total == 32
        assert client.stats.num_computed_tokens == 20 + 7


async def test_a_stream_knows_when_its_turn_came():
    async with running_client(max_num_sequences=1, step_seconds=0.02) as client:
        began = time.monotonic()
        first, second = (client.generate(ask(name, [1, 2], max_tokens=5)) for name in "ab")
        assert first.begun_at is None
        await asyncio.gather(read(first), read(second))
        assert began <= first.begun_at < second.begun_at < time.monotonic()
        assert second.begun_at - first.begun_at >= 5 * 0.02


async def test_a_closed_stream_frees_its_blocks():
    async with running_client(step_seconds=0.05) as client:
        stream = client.generate(ask("a", [1], max_tokens=1000))
        await anext(stream)
        await stream.aclose()
        assert client.counters.aborted == 1
        assert [event async for event in stream] == []
        await until(lambda: client.stats.running == client.stats.blocks_in_use == 0)


async def test_a_cancelled_reader_aborts_its_request():
    async with running_client(step_seconds=0.05) as client:
        reading = asyncio.create_task(read(client.generate(ask("a", [1], max_tokens=1000))))
        await until(lambda: client.stats.running == 1)
        reading.cancel()
        await until(lambda: client.counters.aborted == 1)
        await until(lambda: client.stats.running == 0)


async def test_a_reader_who_has_enough_finishes_its_request():
    async with running_client(step_seconds=0.01) as client:
        async with client.generate(ask("a", [1], max_tokens=1000)) as stream:
            await anext(stream)
            stream.finish()
        assert (client.counters.finished, client.counters.aborted) == (1, 0)


async def test_bounded():
    """One request more than the cap is refused, with a time to come back; a place that falls free is taken."""
    async with running_client(max_queued_requests=2, step_seconds=0.02) as client:
        streams = [client.generate(request) for request in long_requests(2, max_tokens=1000)]
        with pytest.raises(Overloaded, match="limit of 2") as refusal:
            client.generate(ask("third", [1]))
        assert 0 < refusal.value.retry_after <= 60
        await streams[0].aclose()
        await read(client.generate(ask("fourth", [1])))
        assert (client.counters.received, client.counters.refused) == (4, 1)


async def test_a_prompt_beyond_the_context_is_refused_before_any_work():
    async with running_client(context_length=64) as client:
        with pytest.raises(ContextLengthExceeded, match=r"64 tokens.*64 tokens"):
            client.generate(ask("long", [1] * 64))
        assert (await read(client.generate(ask("fits", [1] * 63)))).finish_reason is FinishReason.LENGTH


async def test_listeners_hear_every_event_once():
    async with running_client() as client:
        events = []
        client.subscribe(events.append)
        answer = await read(client.generate(ask("a", [1, 2])))
        assert [event.token_id for event in events] == answer.token_ids
        assert [bool(event.finish_reason) for event in events] == [False] * 7 + [True]


async def test_while_loading_requests_are_refused():
    client = EngineClient(fake_config(), ServerConfig())
    await client.start()
    assert client.state is EngineState.LOADING
    with pytest.raises(NotReady, match="loading"):
        client.generate(ask("early", [1]))
    await client.stop()
    with pytest.raises(NotReady):
        await client.wait_ready()


async def test_drain_refuses_the_new_and_finishes_the_running():
    async with running_client(step_seconds=0.01) as client:
        (request,) = long_requests(1)
        reading = asyncio.create_task(read(client.generate(request)))
        await asyncio.sleep(0)
        draining = asyncio.create_task(client.drain(PATIENCE))
        await asyncio.sleep(0)
        with pytest.raises(NotReady, match="shutting down"):
            client.generate(ask("late", [1]))
        assert await draining
        assert await reading == expected(request)


async def test_stop_ends_what_does_not_finish_in_time():
    async with running_client(step_seconds=0.01, drain_timeout=0.2) as client:
        reading = asyncio.create_task(read(client.generate(ask("endless", [1], max_tokens=100_000, ignore_eos=True))))
        await until(lambda: client.stats.running == 1)
        pid = client.engine_pid
        await client.stop()
        assert is_gone(pid)
        assert (await reading).finish_reason is FinishReason.ABORT
        assert client.state is EngineState.STOPPED
        check_accounts(client.counters)


async def test_stopped_twice_it_stops_at_once():
    async with running_client(step_seconds=0.01, drain_timeout=10 * PATIENCE) as client:
        reading = asyncio.create_task(read(client.generate(ask("endless", [1], max_tokens=4000))))
        await until(lambda: client.stats.running == 1)
        first = asyncio.create_task(client.stop())
        await asyncio.sleep(0.1)
        assert not first.done()
        async with asyncio.timeout(PATIENCE):
            await client.stop()
            await first
        assert (await reading).finish_reason is FinishReason.ABORT


async def test_a_stopped_engine_is_ended_by_signal():
    async with running_client() as client:
        pid = client.engine_pid
        os.kill(pid, signal.SIGSTOP)
        await client.stop()
        assert is_gone(pid)

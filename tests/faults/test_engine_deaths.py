"""Engines die and hang in the middle of streams; the streams go on with the tokens they would have had."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest
from fronts import PATIENCE, expected, long_requests, read, running_client, until
from loads import ask, fake_config

from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.errors import CheckpointError, EngineDied, EngineError, NotReady
from antiphon.request import FinishReason


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=lambda blow: blow.name)
async def test_streams_survive_the_engine(blow):
    """Killed or stopped in the middle of eight streams: a pause, and then exactly the same tokens."""
    async with running_client(step_seconds=0.02, hang_timeout=3.0) as client:
        requests, num_events = long_requests(8), []
        client.subscribe(num_events.append)
        reading = [asyncio.create_task(read(client.generate(request))) for request in requests]
        await until(lambda: len(num_events) > 8 * 10)
        first = client.engine_pid
        os.kill(first, blow)
        answers = await asyncio.gather(*reading)
        assert answers == [expected(request) for request in requests]
        assert client.restarts == 1
        assert client.engine_pid != first
        assert client.counters.finished == 8


async def test_scores_are_told_once_though_the_engine_dies():
    prompt = [*range(1, 81)]
    request = replace(ask("a", prompt, num_logprobs=0, max_tokens=3), num_scored_tokens=len(prompt) - 1)
    async with running_client(step_seconds=0.01) as client:
        events = []
        client.subscribe(events.append)
        reading = asyncio.create_task(read(client.generate(request)))
        await until(lambda: len(events) > 20)
        os.kill(client.engine_pid, signal.SIGKILL)
        assert await reading == expected(ask("a", prompt, max_tokens=3))
        assert [event.is_prompt for event in events] == [True] * (len(prompt) - 1) + [False] * 3


async def test_a_request_that_arrives_between_two_engines_waits():
    async with running_client(step_seconds=0.01) as client:
        os.kill(client.engine_pid, signal.SIGKILL)
        await until(lambda: client.state is EngineState.RESTARTING)
        request = ask("patient", [1, 2, 3])
        assert await read(client.generate(request)) == expected(request)


async def test_two_deaths_end_only_those_who_were_on_board_of_both():
    async with running_client(step_seconds=0.02) as client:
        on_both, on_second = long_requests(2)
        events = []
        client.subscribe(events.append)
        unlucky = asyncio.create_task(read(client.generate(on_both)))
        await until(lambda: len(events) >= 3)
        os.kill(client.engine_pid, signal.SIGKILL)
        await until(lambda: client.state is EngineState.RESTARTING)
        lucky = asyncio.create_task(read(client.generate(on_second)))
        await until(lambda: any(event.request_id == on_second.request_id for event in events))
        os.kill(client.engine_pid, signal.SIGKILL)
        with pytest.raises(EngineDied, match="twice"):
            await unlucky
        assert await lucky == expected(on_second)
        assert (client.counters.failed, client.counters.finished) == (1, 1)


@pytest.mark.parametrize("fault", ["die_on", "hang_on", "raise_on"])
async def test_a_poisonous_request_is_refused_after_two_engines(fault):
    async with running_client(**{fault: 200}, hang_timeout=2.0) as client:
        with pytest.raises(EngineDied):
            await read(client.generate(ask("poison", [1, 200])))
        assert client.restarts == 2
        request = ask("after", [1, 2])
        assert await read(client.generate(request)) == expected(request)


async def test_bad_input_touches_nobody_else():
    """A row that is no number fails its request alone; the neighbour's tokens are the same."""
    async with running_client(fail_on=200, step_seconds=0.01) as client:
        (neighbour,) = long_requests(1)
        reading = asyncio.create_task(read(client.generate(neighbour)))
        with pytest.raises(EngineError, match="not a number"):
            await read(client.generate(ask("bad", [1, 200])))
        assert await reading == expected(neighbour)
        assert client.restarts == 0


async def test_an_idle_engine_is_not_hung():
    async with running_client(hang_timeout=1.0) as client:
        await asyncio.sleep(2.5)
        assert client.restarts == 0
        request = ask("late", [1])
        assert await read(client.generate(request)) == expected(request)


async def test_a_step_that_takes_long_but_moves_the_counter_is_no_hang():
    """Together the steps take longer than the time-out; only a counter that stands still is a hang."""
    async with running_client(step_seconds=1.5, hang_timeout=3.0) as client:
        request = ask("slow", [1], max_tokens=3)
        assert await read(client.generate(request)) == expected(request)
        assert client.restarts == 0


async def test_a_checkpoint_that_cannot_be_served_is_given_up_at_once(caplog):
    client = EngineClient(fake_config(refuse_to_load="model.gguf: tensor blk.0 is cut short"), ServerConfig())
    await client.start()
    with pytest.raises(CheckpointError, match=r"blk\.0 is cut short"):
        async with asyncio.timeout(PATIENCE):
            await client.wait_ready()
    assert client.state is EngineState.FAILED
    with pytest.raises(NotReady):
        client.generate(ask("late", [1]))
    await client.stop()
    assert not caplog.records  # whoever waits for the engine says it


async def test_an_engine_that_keeps_dying_while_loading_is_given_up():
    client = EngineClient(fake_config(kv_cache_tokens=1 << 60), ServerConfig())  # more memory than there is
    await client.start()
    with pytest.raises(EngineDied, match="3 times in a row while loading"):
        async with asyncio.timeout(PATIENCE):
            await client.wait_ready()
    assert client.engine_pid is None
    await client.stop()


async def test_the_next_engine_may_be_hopeless(caplog):
    """Streams that wait for an engine that never comes end with an error; nothing vanishes."""
    async with running_client(step_seconds=0.02) as client:
        reading = asyncio.create_task(read(client.generate(ask("orphan", [1], max_tokens=1000))))
        await until(lambda: client.stats.step > 2)
        client._supervisor._config = fake_config(refuse_to_load="the file was deleted")
        os.kill(client.engine_pid, signal.SIGKILL)
        with pytest.raises(EngineDied, match="could not be started again"):
            await reading
        assert client.state is EngineState.FAILED
    assert "the file was deleted" in caplog.text


async def test_an_aborted_request_is_not_handed_over():
    async with running_client(step_seconds=0.02) as client:
        stream = client.generate(ask("gone", [1], max_tokens=1000))
        assert (await anext(stream)).token_id is not None
        os.kill(client.engine_pid, signal.SIGKILL)
        await until(lambda: client.state is EngineState.RESTARTING)
        client.abort("gone")
        assert (await read(stream)).finish_reason is FinishReason.ABORT
        await until(lambda: client.is_ready)
        assert client.counters.aborted == 1

"""Engines die and hang in the middle of streams; the streams go on with the tokens they would have had."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest
from fronts import expected, long_requests, read, running_client, supervisor_of, until
from loads import ask, expected_answer, fake_config
from open_files import no_descriptor_left
from patience import PATIENCE
from processes import starved

from antiphon.config import FakeSettings, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.errors import CheckpointError, ConfigError, EngineDied, EngineError, NotReady
from antiphon.machine import Starvation
from antiphon.request import FinishReason, ThinkingLimit


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


async def test_two_deaths_end_only_those_that_both_engines_were_working_on():
    async with running_client(hang_on=250, hang_timeout=60.0, max_num_sequences=1) as client:
        (patient,) = long_requests(1)
        worked_on_twice = asyncio.create_task(read(client.generate(ask("both", [1, 250]))))
        await until(lambda: _working_on(client) == {"both"})
        waiting = asyncio.create_task(read(client.generate(patient)))  # handed over, and never begun
        for num_deaths in range(2):
            await until(lambda num=num_deaths: client.restarts == num and _working_on(client) == {"both"})
            os.kill(client.engine_pid, signal.SIGKILL)
        with pytest.raises(EngineDied, match="twice"):
            await worked_on_twice
        assert await waiting == expected(patient)
        assert (client.counters.failed, client.counters.finished) == (1, 1)


async def test_deaths_between_steps_count_against_nobody():
    """Killed four times, each time before the engine has worked on anything."""
    (request,) = long_requests(1)
    async with running_client() as client:
        os.kill(client.engine_pid, signal.SIGSTOP)
        reading = asyncio.create_task(read(client.generate(request)))
        for num_deaths in range(1, 5):
            os.kill(client.engine_pid, signal.SIGKILL)
            await until(lambda num=num_deaths: client.restarts == num and client.engine_pid is not None)
        assert await reading == expected(request)
        assert client.counters.failed == 0


async def test_64_streams_of_20000_thought_tokens_survive_the_engine():
    """At the default time-out for hangs: what a replacement takes over is not replayed token by token."""
    thought = [n * 7919 % 180 for n in range(20_000)]
    limit = ThinkingLimit(30_000, (201, 200, 201), ((200,),), sentence_end_token_ids=(199,))
    requests = [
        ask(
            f"r{n}",
            [n + 1] * 3,
            sent=thought[n:] + thought[:n],
            temperature=0.6,
            seed=n,
            max_tokens=20_012,
            thinking=limit,
        )
        for n in range(64)
    ]
    large = {"context_length": 32_768, "kv_cache_tokens": 64 * 20_480, "max_batch_tokens": 16_384, "block_size": 512}
    async with running_client(hang_timeout=ServerConfig().hang_timeout, target_step_seconds=0, **large) as client:
        begun = set()
        client.subscribe(lambda event: begun.add(event.request_id))
        reading = [asyncio.create_task(read(client.generate(request))) for request in requests]
        await until(lambda: len(begun) > 32)
        os.kill(client.engine_pid, signal.SIGKILL)
        answers = await asyncio.gather(*reading)
        assert client.restarts == 1
    assert answers == [expected_answer(request, FakeSettings(), 32_768) for request in requests]


def _working_on(client: EngineClient) -> frozenset[str]:
    """The requests that the engine is working on now."""
    engine = supervisor_of(client)._engine
    return engine._progress.working_on if engine else frozenset()


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


async def test_an_engine_that_gets_no_processor_is_not_hung():
    """Others use all of the only one that it may run on, for longer than it may make no progress."""
    request = ask("starved", [1], max_tokens=20)
    async with running_client(hang_timeout=1.0) as client:
        starvation = Starvation(client.engine_pid)
        starvation.seconds()
        with starved(client.engine_pid):
            reading = asyncio.create_task(read(client.generate(request)))
            await asyncio.sleep(6)
        assert starvation.seconds() > 3
        assert await reading == expected(request)
        assert client.restarts == 0


async def test_a_step_that_takes_long_but_moves_the_counter_is_no_hang():
    """Together the steps take longer than the time-out; only a counter that stands still is a hang."""
    async with running_client(step_seconds=0.6, hang_timeout=5.0) as client:
        request = ask("slow", [1], max_tokens=10)
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
    client = EngineClient(fake_config(block_size=0), ServerConfig())  # a division by zero
    await client.start()
    with pytest.raises(EngineDied, match="3 times in a row while loading"):
        async with asyncio.timeout(PATIENCE):
            await client.wait_ready()
    assert client.engine_pid is None
    await client.stop()


async def test_a_first_engine_without_memory_is_given_up_at_once():
    client = EngineClient(fake_config(kv_cache_tokens=1 << 60), ServerConfig())
    await client.start()
    with pytest.raises(ConfigError, match="more memory than is available"):
        async with asyncio.timeout(PATIENCE):
            await client.wait_ready()
    await client.stop()


async def test_low_memory_at_a_restart_is_waited_out():
    """However often an engine cannot have its memory, the streams wait and `trouble` says for what."""
    async with running_client(step_seconds=0.02) as client:
        (request,) = long_requests(1)
        reading = asyncio.create_task(read(client.generate(request)))
        await until(lambda: client.stats.step > 2)
        plan = supervisor_of(client)._config
        supervisor_of(client)._config = fake_config(kv_cache_tokens=1 << 60)
        os.kill(client.engine_pid, signal.SIGKILL)
        await until(lambda: client.restarts > 4)
        assert client.state is EngineState.RESTARTING
        assert client.trouble == "there was not enough memory for it"
        supervisor_of(client)._config = plan
        assert await reading == expected(request)
        assert client.trouble is None


async def test_a_process_that_cannot_be_had_is_waited_for():
    """Three failures in a second, and more, are no reason to end the service."""
    async with running_client(step_seconds=0.02) as client:
        (request,) = long_requests(1)
        reading = asyncio.create_task(read(client.generate(request)))
        await until(lambda: client.stats.step > 2)
        with no_descriptor_left():
            os.kill(client.engine_pid, signal.SIGKILL)
            await until(lambda: client.restarts > 4)
            assert client.trouble == "no process could be started for it (Too many open files)"
        assert await reading == expected(request)


async def test_a_checkpoint_that_can_no_longer_be_served_is_given_up(caplog):
    """Streams that wait for an engine that never comes end with an error; nothing vanishes."""
    async with running_client(step_seconds=0.02) as client:
        reading = asyncio.create_task(read(client.generate(ask("orphan", [1], max_tokens=1000))))
        await until(lambda: client.stats.step > 2)
        supervisor_of(client)._config = fake_config(refuse_to_load="the file was deleted")
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

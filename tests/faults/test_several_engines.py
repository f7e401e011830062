"""Several engines behind one client are added, removed, killed, restarted and replaced; no stream notices."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest
from fronts import expected, long_requests, read, running_client, until
from loads import ask, expected_answer, fake_config
from patience import PATIENCE
from processes import is_gone

from antiphon.config import EngineConfig, FakeSettings
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.fleet.breaker import LONGEST_DELAY, BreakerState
from antiphon.errors import (
    ConfigError,
    EngineDied,
    EngineUnavailable,
    NoSuchEngine,
    NotEnoughMemory,
    NotReady,
    OperationInProgress,
)
from antiphon.machine.gpu import Gpu
from antiphon.request import TokenEvent

GIB = 1 << 30


@asynccontextmanager
async def streaming(client: EngineClient, count: int = 32, *, max_tokens: int = 60) -> AsyncIterator[None]:
    """So many answers are being streamed at the beginning of the block; each ends as it would have alone."""
    requests = long_requests(count, max_tokens=max_tokens)
    begun: set[str] = set()
    client.subscribe(lambda event: begun.add(event.request_id))
    reading = [asyncio.create_task(read(client.generate(request))) for request in requests]
    await until(lambda: len(begun) == count)
    yield
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*reading) == [expected(request) for request in requests]
    assert client.counters.failed == client.counters.aborted == 0


@contextmanager
def paused(client: EngineClient) -> Iterator[None]:
    """The first engine computes nothing, so its answers do not end before something else is ready.

    Give the client a long `hang_timeout`.
    """
    pid = client.engine_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ids(client: EngineClient) -> list[int]:
    return [engine.id for engine in client.engines()]


def load(client: EngineClient) -> dict[int, int]:
    """Unfinished requests of each engine."""
    return {engine.id: engine.running + engine.waiting for engine in client.engines()}


async def test_two_engines_share_the_requests_and_answer_as_one_would():
    async with running_client(engines=2, step_seconds=0.01) as client:
        assert [(engine.id, engine.state, engine.generation) for engine in client.engines()] == [
            (1, EngineState.READY, 1),
            (2, EngineState.READY, 1),
        ]
        assert len({engine.pid for engine in client.engines()}) == 2
        async with streaming(client):
            assert min(load(client).values()) >= 8
            assert sum(load(client).values()) == 32
            assert all(engine.tokens_owed > 0 for engine in client.engines())
        assert client.stats.blocks_total == sum(client.stats_of(engine_id).blocks_total for engine_id in (1, 2))


async def test_the_choices_of_one_request_go_to_one_engine():
    async with running_client(engines=2, step_seconds=0.02) as client:
        choices = [replace(ask(f"c{n}", [7] * 40, max_tokens=200, temperature=1.0), choice_index=n) for n in range(4)]
        streams = client.generate_all(choices)
        assert sorted(load(client).values()) == [0, 4]
        (engine,) = (engine for engine in client.engines() if engine.waiting)
        reading = [asyncio.create_task(read(stream)) for stream in streams]
        await until(lambda: client.stats.running == 4)
        os.kill(engine.pid, signal.SIGKILL)  # and so they do when they move
        await until(lambda: sorted(load(client).values()) == [0, 4] and load(client)[engine.id] == 0)
        assert await asyncio.gather(*reading) == [expected(choice) for choice in choices]


async def test_a_conversation_returns_to_the_engine_that_has_its_prefix():
    async with running_client(engines=2) as client:
        first = ask("first", list(range(100)))
        answer = await read(client.generate(first))
        for turn in range(4):  # the other engine is as idle
            await read(client.generate(ask(f"other{turn}", [turn + 1] * 50)))
        hits = [client.stats_of(engine_id).num_prefix_hits for engine_id in (1, 2)]
        await read(client.generate(ask("next", [*range(100), *answer.token_ids, 5, 6, 7])))
        new_hits = [client.stats_of(engine_id).num_prefix_hits for engine_id in (1, 2)]
        assert sum(new_hits) - sum(hits) >= 96


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=lambda blow: blow.name)
async def test_streams_of_a_dead_engine_go_on_at_another_one_before_it_is_back(blow):
    """Its replacement cannot load as long as the test holds it; all streams end at the other engine."""
    async with running_client(engines=2, step_seconds=0.01, hang_timeout=2.0) as client:
        first, second = client.engines()
        may_load = asyncio.Event()
        client._fleet.engines[first.id]._supervisor._pause = may_load.wait
        async with streaming(client):
            os.kill(first.pid, blow)
            await until(lambda: client.engines()[0].state is EngineState.RESTARTING)
            assert load(client) == {first.id: 0, second.id: client.counters.running}
            assert client.is_ready
            assert client.trouble
        assert client.engines()[0].pid is None  # all answers are complete, and it is still away
        may_load.set()
        await until(lambda: client.engines()[0].state is EngineState.READY)
        assert (client.restarts, client.trouble) == (1, None)
        async with streaming_again(client):
            assert min(load(client).values()) > 0


@asynccontextmanager
async def streaming_again(client: EngineClient) -> AsyncIterator[None]:
    requests = [replace(request, request_id=f"again-{request.request_id}") for request in long_requests(8)]
    reading = [asyncio.create_task(read(client.generate(request))) for request in requests]
    await asyncio.sleep(0)
    yield
    assert await asyncio.gather(*reading) == [expected(request) for request in requests]


async def test_a_request_that_kills_its_engine_ends_after_two_of_them():
    async with running_client(engines=3, die_on=200, step_seconds=0.01) as client:
        with pytest.raises(EngineDied, match="twice"):
            await read(client.generate(ask("poison", [1, 200])))
        assert sorted(engine.restarts for engine in client.engines()) == [0, 1, 1]
        (request,) = long_requests(1)
        assert await read(client.generate(request)) == expected(request)


async def test_an_engine_is_added_and_removed_under_streams():
    async with running_client(step_seconds=0.01, hang_timeout=600) as client:
        async with streaming(client, max_tokens=100):
            with paused(client):
                added = await client.operations.add_engine()
            assert (added, ids(client)) == (2, [1, 2])
            request = ask("new", [1, 2, 3], max_tokens=30)
            reading = asyncio.create_task(read(client.generate(request)))
            await asyncio.sleep(0)
            assert load(client)[2] == 1  # it owes the least
            pid = client.engine_pid
            await client.operations.remove_engine(1)
            assert is_gone(pid)
            assert ids(client) == [2]
            assert await reading == expected(request)
        with pytest.raises(ConfigError, match=r"cannot be removed.*add one first"):
            await client.operations.remove_engine(2)
        assert await client.operations.add_engine() == 3


async def test_a_drained_engine_gets_nothing_until_it_is_resumed():
    async with running_client(engines=2, step_seconds=0.01) as client:
        async with streaming(client):
            await client.operations.drain_engine(1)
            assert load(client) == {1: 0, 2: 32}
            assert client.engines()[0].state is EngineState.DRAINED
            with pytest.raises(ConfigError, match="cannot be drained"):
                await client.operations.drain_engine(2)
            client.operations.resume_engine(1)
            assert client.engines()[0].state is EngineState.READY
            await client.operations.drain_engine(2)  # back to the engine that they left before
            assert load(client) == {1: 32, 2: 0}
        with pytest.raises(NoSuchEngine, match="no engine 7; the engines are: 1, 2"):
            await client.operations.drain_engine(7)


async def test_all_engines_restart_under_streams():
    async with running_client(engines=2, step_seconds=0.01) as client:
        before = client.engines()
        async with streaming(client, max_tokens=200):
            await client.operations.rolling_restart()
            assert ids(client) == [3, 4]
            assert all(is_gone(engine.pid) for engine in before)
        assert client.restarts == 0
        assert client.stats.num_computed_tokens >= 32 * 200  # what earlier engines computed counts too


@pytest.mark.parametrize("num_engines", [1, 2])
async def test_without_memory_for_two_an_engine_restarts_in_place(num_engines):
    memory = {"free_memory": lambda: 0, "memory_bytes": GIB}
    async with running_client(engines=num_engines, step_seconds=0.01, **memory) as client:
        before = client.engines()
        async with streaming(client, max_tokens=100):
            assert await client.operations.restart_engine(1) == 1
            assert client.engines()[0].pid != before[0].pid
            assert is_gone(before[0].pid)
            assert len(client.engines()) == num_engines
        assert client.trouble is None
        with pytest.raises(NotEnoughMemory, match=r"another engine would need 1\.0 GiB of memory, and 0\.0 GiB are"):
            await client.operations.add_engine()


async def test_memory_that_engines_have_not_used_yet_is_not_free():
    async with running_client(free_memory=lambda: 2 * GIB, memory_bytes=2 * GIB) as client:
        with pytest.raises(NotEnoughMemory, match=r"would need 2\.0 GiB of memory, and 0\.[01] GiB are free"):
            await client.operations.add_engine()


async def test_new_settings_with_the_same_bits_take_the_streams_over():
    async with running_client(step_seconds=0.01) as client:
        switched: list[int] = []
        async with streaming(client, max_tokens=100):
            config = fake_config(engines=2, step_seconds=0.01, max_num_sequences=4)
            generation = await client.operations.replace(config, on_switch=lambda: switched.append(client.generation))
            assert switched == [generation] == [2]
            assert all(engine.generation == 2 for engine in client.engines() if engine.running or engine.waiting)
            await client.operations.wait_generation_ended(1)
            assert ids(client) == [2, 3]
        assert client.max_num_sequences == 8


async def test_new_engines_with_other_arithmetic_leave_the_streams_to_the_old_ones():
    """The settings are the same: another version of the program may have been installed since."""
    async with running_client(step_seconds=0.01, hang_timeout=600, own_arithmetic=True) as client:
        async with streaming(client, 4, max_tokens=100):
            with paused(client):
                await client.operations.replace(client._fleet.generation.config)
                assert load(client) == {1: 4, 2: 0}
        await client.operations.wait_generation_ended(1)
        assert client.num_inexact == 0


async def test_another_model_gets_the_new_requests_while_the_old_one_finishes_its_own():
    other = FakeSettings(step_seconds=0.01, vocab_size=100)
    async with running_client(step_seconds=0.01, hang_timeout=600) as client:
        async with streaming(client, max_tokens=100):
            with client.operations.generation_held() as old, paused(client):
                generation = await client.operations.replace(with_fake(client, other))
                assert (old, generation) == (1, 2)
                assert load(client) == {1: 32, 2: 0}
                assert client.engines()[0].state is EngineState.DRAINING
                new, late = ask("new", [1, 2, 3], max_tokens=30), ask("late", [1, 2, 3], max_tokens=30)
                answers = read(client.generate(new)), read(client.generate_all([late], generation=old)[0])
                assert load(client) == {1: 33, 2: 1}
            assert await asyncio.gather(*answers) == [expected_answer(new, other, 4096), expected(late)]
        await client.operations.wait_generation_ended(1)
        assert ids(client) == [2]
        with pytest.raises(NotReady, match="was replaced"):
            client.generate_all([ask("too-late", [1])], generation=1)


async def test_the_last_requests_of_an_earlier_model_survive_the_death_of_its_engine():
    async with running_client(step_seconds=0.01, hang_timeout=600) as client:
        async with streaming(client, 8):
            pid = client.engine_pid
            os.kill(pid, signal.SIGSTOP)
            await client.operations.replace(with_fake(client, FakeSettings(step_seconds=0.01, vocab_size=100)))
            os.kill(pid, signal.SIGKILL)
            await until(lambda: client.restarts == 1)
        await client.operations.wait_generation_ended(1)
        assert is_gone(pid)


def with_fake(client: EngineClient, settings: FakeSettings) -> EngineConfig:
    return replace(client._fleet.generation.config, fake_settings=settings)


async def test_a_replacement_that_fails_changes_nothing():
    async with running_client(step_seconds=0.01) as client:
        async with streaming(client, 4):
            for config, error in (
                (fake_config(refuse_to_load="model.gguf: a tensor is cut short", engines=2), "cut short"),
                (fake_config(kv_cache_tokens=1 << 60), "more memory than is available"),
                (fake_config(memory_bytes=1 << 60, engines=2), "2 new engines would need"),
            ):
                with pytest.raises(Exception, match=error):
                    await client.operations.replace(config)
            assert (client.generation, ids(client), client.state) == (1, [1], EngineState.READY)
        assert await client.operations.add_engine() > 1


async def test_one_operation_runs_at_a_time():
    async with running_client(load_seconds=0.2) as client:
        adding = asyncio.create_task(client.operations.add_engine())
        await until(lambda: client.operations.current is not None)
        operations: list[Callable[[], Awaitable[object]]] = [
            client.operations.add_engine,
            client.operations.rolling_restart,
            lambda: client.operations.remove_engine(1),
            lambda: client.operations.restart_engine(1),
            lambda: client.operations.replace(fake_config()),
        ]
        for operation in operations:
            with pytest.raises(OperationInProgress, match="an engine is being added; try again when that is done"):
                await operation()
        await adding
        assert client.operations.current is None


async def test_a_server_that_stops_ends_an_operation():
    async with running_client(load_seconds=0.5) as client:
        adding = asyncio.create_task(client.operations.add_engine())
        await until(lambda: client.operations.current is not None)
        await client.stop()
        with pytest.raises(NotReady):
            await adding


async def test_a_removal_whose_caller_gives_up_still_stops_the_engine():
    async with running_client(engines=2) as client:
        pid = client.engine_pid
        os.kill(pid, signal.SIGSTOP)  # so that it takes a moment
        removing = asyncio.create_task(client.operations.remove_engine(1))
        await until(lambda: client.operations.current is not None)
        removing.cancel()
        await until(lambda: ids(client) == [2])
        assert is_gone(pid)


async def test_late_events_of_the_engine_that_had_a_request_are_not_taken_for_new_ones():
    """A request leaves an engine and comes back while the engine is still in a step that computes it."""
    async with running_client(engines=2, step_seconds=0.2) as client:
        request = ask("r", [1, 2, 3], max_tokens=10)
        events: list[TokenEvent] = []
        client.subscribe(events.append)
        reading = asyncio.create_task(read(client.generate(request)))
        await until(lambda: len(events) == 2)
        for _ in range(3):
            for engine_id in (1, 2):
                await client.operations.drain_engine(engine_id)
                client.operations.resume_engine(engine_id)
        assert await reading == expected(request)
        assert {event.request_id for event in events} == {"r"}
        assert len(events) == 10


async def test_new_requests_pass_over_an_engine_that_keeps_failing_while_there_is_another():
    async with running_client(engines=2) as client:
        first, second = client._all
        for _ in range(3):
            first.breaker.engine_failed()
        for number in range(4):
            request = ask(f"r{number}", [number + 1] * 4)
            stream = client.generate(request)
            assert load(client) == {1: 0, 2: 1}
            assert await read(stream) == expected(request)
        for _ in range(5):  # as many as it has answered, and one more
            second.breaker.engine_failed()
        with pytest.raises(EngineUnavailable):
            client.generate(ask("refused", [1]))
        first.breaker._clock = lambda: time.monotonic() + LONGEST_DELAY
        probe = ask("probe", [1, 2])
        stream = client.generate(probe)
        assert load(client) == {1: 1, 2: 0}
        with pytest.raises(EngineUnavailable):
            client.generate(ask("beside the probe", [1]))
        assert await read(stream) == expected(probe)
        assert first.breaker.state is BreakerState.CLOSED
        assert (client.counters.refused, client.breakers_opened) == (2, 2)


async def test_an_engine_is_added_on_a_gpu_only_if_the_gpu_can_be_used_and_has_room_for_it(monkeypatch):
    """Also by a server that has no engine on a GPU. The engines are fake."""
    gpus = [Gpu("NVIDIA A100", (8, 0), 80 * GIB, free * GIB, "570.1") for free in (4, 6)]
    monkeypatch.setattr("antiphon.engine.fleet.operations.see_gpus", lambda: gpus)
    monkeypatch.setattr("antiphon.machine.gpu._missing_packages", list)
    sizes = {"gpu_bytes": 5 * GIB, "host_bytes": 2 * GIB}
    async with running_client(free_memory=lambda: 100 * GIB, **sizes) as client:
        with pytest.raises(NotEnoughMemory, match=r"would need 5\.0 GiB of cuda:0, which has 4\.0 GiB free"):
            await client.operations.add_engine("cuda:0")
        with pytest.raises(ConfigError, match="device cuda:2: there is no such GPU"):
            await client.operations.add_engine("cuda:2")
        assert await client.operations.add_engine("cuda:1") == 2
        client.operations._free_memory = lambda: GIB
        await client.operations.remove_engine(2)
        with pytest.raises(NotEnoughMemory, match=r"an engine on cuda:1 would need 2\.0 GiB of memory"):
            await client.operations.add_engine("cuda:1")


async def test_a_gpu_has_one_engine_which_restarts_in_place_and_the_cpu_may_have_several():
    """The engines are fake, and their devices only names."""
    async with running_client(devices=("cuda:1", "cpu"), step_seconds=0.01) as client:

        def places() -> dict[int, str | None]:
            return {engine.id: engine.address for engine in client.engines()}

        assert places() == {1: "cuda:1", 2: "cpu"}
        with pytest.raises(ConfigError, match="cuda:1 has engine 1; a GPU has one engine"):
            await client.operations.add_engine("cuda:1")
        assert await client.operations.add_engine("cpu") == 3
        async with streaming(client, 8):
            assert await client.operations.restart_engine(1) == 1
            assert await client.operations.restart_engine(2) == 4
            await client.operations.remove_engine(1)
        assert await client.operations.add_engine("cuda:1") == 5
        assert places() == {3: "cpu", 4: "cpu", 5: "cuda:1"}

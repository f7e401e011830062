"""Progress reports: who waits behind how many, how much of a prompt is read, and that nothing else changes by them."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

from fronts import running_client
from hypothesis import given
from hypothesis import strategies as st
from loads import EngineInMemory, ask, expected_answer
from patience import PATIENCE

from antiphon.config import FakeSettings
from antiphon.request import GenerateRequest, RequestProgress


def watched(request_id: str, prompt: list[int], **fields: object) -> GenerateRequest:
    """A request that reports its progress."""
    return replace(ask(request_id, prompt, **fields), reports_progress=True)  # type: ignore[arg-type]


class Watch:
    """An engine, and the positions as its client knows them."""

    def __init__(self, **settings: object) -> None:
        self.engine = EngineInMemory(**settings)
        self.positions: dict[str, int] = {}  # of those that wait
        self.read: dict[str, list[RequestProgress]] = {}

    def add(self, request: GenerateRequest) -> None:
        self.engine.scheduler.add(request)

    def step(self) -> list[RequestProgress]:
        """One step; what it reported about the queue."""
        self.engine.step()
        for request_id in self.engine.scheduler.begun:
            self.positions.pop(request_id, None)
        queue = self.engine.scheduler.queue_progress()
        self.positions |= {report.request_id: report.position for report in queue}
        for report in self.engine.scheduler.prompt_progress:
            self.positions.pop(report.request_id, None)
            self.read.setdefault(report.request_id, []).append(report)
        return queue


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(3, 16),
)
def test_positions_are_a_permutation_and_only_fall_while_nobody_overtakes(arrivals, places, batch):
    """Arrivals of (prompt tokens, answer tokens, steps until the next)."""
    watch = Watch(max_num_sequences=places, max_batch_tokens=batch, block_size=4, prefill_chunk=5, kv_cache_tokens=512)
    before: dict[str, int] = {}

    def step() -> None:
        nonlocal before
        watch.step()
        assert sorted(watch.positions.values()) == [*range(1, len(watch.positions) + 1)]
        assert [*watch.positions] == sorted(watch.positions, key=lambda name: int(name[1:]))
        assert all(position <= before.get(name, position) for name, position in watch.positions.items())
        before = dict(watch.positions)

    for number, (prompt, answer, steps) in enumerate(arrivals):
        watch.add(watched(f"r{number}", [number + 1] * prompt, max_tokens=answer))
        for _ in range(steps):
            step()
    while watch.engine.scheduler.has_work:
        step()
    assert watch.positions == {}
    for number, (prompt, _, _) in enumerate(arrivals):
        counts = [report.num_computed_tokens for report in watch.read[f"r{number}"]]
        assert counts == sorted(set(counts))
        assert counts[-1] == prompt


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_only_those_who_asked_are_reported_and_no_answer_changes(asks):
    watch = Watch(max_num_sequences=2, block_size=4, kv_cache_tokens=512)
    requests = [replace(ask(f"r{n}", [n + 1] * 9), reports_progress=wish) for n, wish in enumerate(asks)]
    reported: set[str] = set()
    for request in requests:
        watch.add(request)
    while watch.engine.scheduler.has_work:
        reported |= {report.request_id for report in watch.step()}
    reported |= set(watch.read)
    assert reported == {request.request_id for request in requests if request.reports_progress}
    for request in requests:
        assert watch.engine.answers.of(request.request_id) == watch.engine.expected(request)


def test_a_higher_priority_overtakes_and_a_place_is_reported_once():
    watch = Watch(max_num_sequences=1)
    watch.add(ask("runs", [1], max_tokens=100))
    watch.add(watched("low", [2], priority=1))
    assert watch.step() == [RequestProgress("low", 1)]
    assert watch.step() == []
    watch.add(watched("high", [3]))
    assert watch.step() == [RequestProgress("high", 1), RequestProgress("low", 2)]


def test_what_was_found_in_the_prefix_cache_counts_as_read():
    watch = Watch(block_size=4, max_batch_tokens=8, target_step_seconds=0.0)
    watch.add(ask("cold", [*range(20)]))
    while watch.engine.scheduler.has_work:
        watch.step()
    watch.add(watched("warm", [*range(18), *range(50, 64)], max_tokens=3))
    while watch.engine.scheduler.has_work:
        watch.step()
    assert watch.read["warm"] == [RequestProgress("warm", 0, count, 16) for count in (24, 32)]


def test_a_preempted_prompt_waits_again_and_is_read_again():
    watch = Watch(block_size=4, kv_cache_tokens=64, max_batch_tokens=4, target_step_seconds=0.0, prefix_caching=False)
    for name in ("old", "older"):
        watch.add(ask(name, [1] * 9, max_tokens=20))
    while watch.engine.scheduler.counts.num_computed_tokens < 18:
        watch.step()
    watch.add(watched("young", [2] * 30, max_tokens=2))
    was_waiting = []
    while watch.engine.scheduler.has_work:
        watch.step()
        was_waiting.append("young" in watch.positions)
    counts = [report.num_computed_tokens for report in watch.read["young"]]
    assert watch.engine.scheduler.counts.num_preemptions > 0
    assert was_waiting.index(True) < len(was_waiting) - 1
    assert counts != sorted(counts)
    assert counts[-1] == 30


def test_a_request_with_tokens_of_an_earlier_engine_reports_nothing():
    watch = Watch(max_num_sequences=1, block_size=4)
    watch.add(ask("runs", [1], max_tokens=3))
    watch.add(watched("resumed", [2] * 9, sent=[65, 66]))
    while watch.engine.scheduler.has_work:
        assert watch.step() == []
    assert watch.read == {}


async def test_after_an_engines_death_the_next_one_reports_and_the_answer_is_the_same():
    settings = {"block_size": 4, "step_seconds": 0.02}
    request = watched("a", [7] * 60, max_tokens=4)
    async with running_client(max_batch_tokens=4, target_step_seconds=0.0, **settings) as client:
        counts: list[int] = []
        token_ids: list[int] = []
        ended = asyncio.Event()

        def hear(event: object) -> None:
            token_ids.extend([event.token_id] if event.token_id is not None else [])  # type: ignore[attr-defined]
            if event.finish_reason:  # type: ignore[attr-defined]
                ended.set()

        def hear_progress(report: RequestProgress) -> None:
            assert not token_ids
            counts.append(report.num_computed_tokens)
            if report.num_computed_tokens == 20 and client.restarts == 0:
                os.kill(client.engine_pid or 0, signal.SIGKILL)

        client.generate(request).listen(hear, hear_progress)
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert client.restarts == 1
    assert token_ids == expected_answer(request, FakeSettings(), 4096).token_ids
    again = counts.index(4, 1)  # the next engine reads from the start
    assert counts[again:] == [*range(4, 61, 4)]

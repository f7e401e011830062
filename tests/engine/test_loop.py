"""The loop, stepped by hand: one report a step, cancels that are prompt, accounts that close whenever it is idle."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from loads import ask, expected_answer, fake_config

from antiphon.engine.wire import (
    Abort,
    AddRequest,
    Connection,
    Message,
    Shutdown,
    StepReport,
    decoder_from_engine,
    encode,
)
from antiphon.engine.worker import loop
from antiphon.engine.worker.loop import EngineLoop
from antiphon.request import FinishReason, RequestProgress
from antiphon.runtime.fake import AheadFakeRunner, FakeRunner
from antiphon.step import StepPlan, StepResult


class Front:
    """The other end of a loop's socket, and the loop."""

    def __init__(self, **settings: object) -> None:
        self.config = fake_config(**settings)
        is_ahead = self.config.fake_settings.looks_ahead
        self.runner = AheadFakeRunner(self.config) if is_ahead else FakeRunner(self.config)
        self.num_bumps = 0
        self.worked_on: list[tuple[str, ...]] = []
        self.socket, theirs = socket.socketpair()
        self.theirs = theirs
        self.loop = EngineLoop(self.config, self.runner, Connection(theirs), self)
        self.decoder = decoder_from_engine()

    def bump(self) -> None:
        self.num_bumps += 1

    def work_on(self, request_ids: Iterable[str]) -> None:
        self.worked_on.append(tuple(request_ids))

    def say(self, *messages: Message) -> None:
        self.socket.sendall(b"".join(map(encode, messages)))

    def step(self) -> StepReport:
        self.loop.step()
        (report,) = self.heard()
        return report

    def heard(self) -> list[Message]:
        return list(self.decoder.feed(self.socket.recv(1 << 20)))


@pytest.fixture
def front(request):
    front = Front(**getattr(request, "param", {}))
    yield front
    front.socket.close()
    front.theirs.close()


def test_a_step_is_one_report(front):
    request = ask("a", [1, 2, 3], max_tokens=3)
    front.say(AddRequest(request))
    reports = [front.step() for _ in range(3)]
    answer = expected_answer(request, front.config.fake_settings, 4096)
    assert [event.token_id for report in reports for event in report.events] == answer.token_ids
    assert [report.stats.step for report in reports] == [1, 2, 3]
    assert [report.stats.step_tokens for report in reports] == [3, 1, 1]
    assert (reports[0].stats.running, reports[-1].stats.running) == (1, 0)
    assert front.num_bumps == 1 + 3  # a request taken, and three steps


@pytest.mark.parametrize("front", [{"looks_ahead": True}], indirect=True)
def test_a_runner_that_looks_ahead_has_the_next_step_before_a_step_is_reported(front):
    request = ask("a", [1, 2, 3], max_tokens=4)
    front.say(AddRequest(request))
    reports, positions = [], []
    for _ in range(4):
        reports.append(front.step())
        positions.append(len(front.runner._results))
    answer = expected_answer(request, front.config.fake_settings, 4096)
    assert [event.token_id for report in reports for event in report.events] == answer.token_ids
    assert positions == [1, 1, 1, 0]  # steps that were submitted and are not collected
    assert [report.begun for report in reports] == [["a"], [], [], []]
    assert front.worked_on[-1] == ()


@pytest.mark.parametrize("front", [{"looks_ahead": True}], indirect=True)
def test_a_request_that_is_aborted_while_its_step_runs_is_waited_for(front):
    front.say(AddRequest(ask("a", [1], max_tokens=1000)))
    front.step()
    front.say(Abort("a"))
    report = front.step()
    assert [event.finish_reason for event in report.events] == [FinishReason.ABORT]
    assert (report.stats.blocks_in_use, report.stats.running) == (0, 0)
    front.say(AddRequest(ask("b", [1], max_tokens=2)))
    assert [event.request_id for event in front.step().events] == ["b"]


@pytest.mark.parametrize("front", [{"max_num_sequences": 1}], indirect=True)
def test_what_is_being_worked_on_is_noted(front):
    """A request while it is taken, those of a step while it is computed, and nothing in between."""
    front.say(*(AddRequest(ask(name, [1, 2], max_tokens=2)) for name in "ab"))
    for _ in range(4):
        front.step()
    assert front.worked_on == [("a",), (), ("b",), (), *[("a",), ()] * 2, *[("b",), ()] * 2]


def test_cancel_is_prompt(front):
    front.say(AddRequest(ask("a", [1], max_tokens=1000)), AddRequest(ask("b", [2], max_tokens=1000)))
    front.step()
    front.say(Abort("a"))
    report = front.step()
    assert [event.finish_reason for event in report.events if event.request_id == "a"] == [FinishReason.ABORT]
    assert [event.request_id for event in report.events if event.token_id is not None] == ["b"]
    assert (report.stats.running, report.stats.blocks_in_use) == (1, 1)
    front.say(Abort("b"))
    assert front.step().stats.blocks_in_use == 0


def test_accounts_are_checked_when_idle(front):
    front.say(AddRequest(ask("a", [1], max_tokens=1)))
    front.step()
    front.loop._pool.allocate(1)  # a leak
    front.say(Abort("nobody"))
    with pytest.raises(AssertionError, match="1 references and 0 holders"):
        front.loop.step()


@pytest.mark.parametrize("front", [{"kv_cache_tokens": 64, "context_length": 100}], indirect=True)
def test_the_context_is_never_longer_than_the_pool(front):
    front.say(Shutdown())
    front.loop.run()
    ready, last = front.heard()
    assert ready.context_length == 64
    assert last.stats.step == 0


def test_a_front_that_is_gone_ends_the_loop(front):
    front.socket.close()
    with pytest.raises(EOFError):
        front.loop.step()


def test_what_the_runner_raises_is_not_hidden(front):
    def fail(plan: StepPlan) -> StepResult:
        raise RuntimeError("no more memory")

    front.runner.execute = fail
    front.say(AddRequest(ask("a", [1])))
    with pytest.raises(RuntimeError, match="no more memory"):
        front.loop.step()


@pytest.mark.parametrize("front", [{"max_num_sequences": 1}], indirect=True)
def test_the_queue_is_reported_only_so_often_and_prompts_after_each_step(front, monkeypatch):
    monkeypatch.setattr(loop, "_QUEUE_REPORTS_EVERY", 1e9)
    first, second, third = (replace(ask(name, [1, 2], max_tokens=4), reports_progress=True) for name in "abc")
    front.say(AddRequest(first), AddRequest(second), AddRequest(ask("quiet", [3])))
    assert front.step().progress == [RequestProgress("b", 1), RequestProgress("a", 0, 2, 0)]
    front.say(AddRequest(third))
    assert front.step().progress == []
    front.loop._queue_report_at = 0.0
    assert front.step().progress == [RequestProgress("c", 3)]


def test_a_cycle_is_a_step_and_the_time_since_the_one_before_but_not_idle_time(front, monkeypatch):
    now = 0.0

    def passes(seconds: float, work: Callable[..., object]) -> Callable[..., object]:
        def slow(*args: object, **kwargs: object) -> object:
            nonlocal now
            now += seconds
            return work(*args, **kwargs)

        return slow

    monkeypatch.setattr(loop.time, "perf_counter", lambda: now)
    front.runner.execute = passes(2.0, front.runner.execute)
    front.loop._connection.send = passes(0.5, front.loop._connection.send)
    for name in "ab":
        now += 100.0  # idle
        front.say(AddRequest(ask(name, [1, 2], max_tokens=3)))
        stats = [front.step().stats for _ in range(3)]
        assert [each.step_seconds for each in stats] == [2.0, 2.0, 2.0]
        assert [each.cycle_seconds for each in stats] == [2.0, 2.5, 2.5]

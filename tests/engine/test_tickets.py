"""Refused requests get times of their own, in order and apart, and the times come true on an engine in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import EngineInMemory, ask

from antiphon.config import EngineConfig
from antiphon.engine.admission import Admission, Load
from antiphon.engine.capacity import Capacity
from antiphon.engine.stream import TokenStream
from antiphon.engine.tickets import EARLY, GRACE, LONGEST, RetryBudget, Tickets
from antiphon.engine.unfinished import Unfinished
from antiphon.engine.wire import EngineStats
from antiphon.errors import Overloaded
from antiphon.request import GenerateRequest, Terms


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 5), st.floats(0, 70)), max_size=60), st.floats(0.1, 5))
def test_every_ticket_used_was_given_out_and_none_is_used_twice(
    uses: list[tuple[int, float, float]], spacing: float
) -> None:
    tickets, now, given_out, used = Tickets(), 0.0, 0, 0
    for who, passed, earliest in uses:
        now += passed
        identity = bytes([who])
        used += tickets.take_back(identity, now)
        wait = tickets.issue(identity, now, earliest, spacing)
        assert wait is None or 0 <= wait <= LONGEST
        given_out += wait is not None
        assert used + tickets.outstanding(now) <= given_out
    assert tickets.outstanding(now + LONGEST + GRACE + 1) == 0
    assert not tickets._of, "an identity is remembered without a ticket"


@given(st.floats(0, 20), st.floats(0.1, 2))
def test_tickets_given_out_at_once_are_apart(earliest: float, spacing: float) -> None:
    tickets = Tickets()
    waits = [tickets.issue(bytes([who]), 0.0, earliest, spacing) for who in range(10)]
    assert waits == pytest.approx([earliest + who * spacing for who in range(10)])


def test_a_ticket_counts_from_shortly_before_its_time_until_a_while_after_it() -> None:
    for at, counts in ((5 - 2 * EARLY, False), (5 - EARLY / 2, True), (5 + GRACE / 2, True), (5 + 2 * GRACE, False)):
        tickets = Tickets()
        assert tickets.issue(b"a", 0.0, 5.0, 1.0) == 5.0
        assert tickets.take_back(b"b", at) is False
        assert tickets.take_back(b"a", at) is counts
        assert tickets.take_back(b"a", at) is False


def test_retries_ahead_are_a_share_of_what_is_admitted() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(100)) == 10
    for _ in range(100):
        budget.earn()
        budget.spend()
    assert sum(budget.spend() for _ in range(100)) <= 1
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert spent == pytest.approx(200, abs=2)


class VirtualServer:
    """The admission before the real scheduler on the fake runner; every step takes `step_seconds` of virtual time."""

    def __init__(self, *, places: int, step_seconds: float = 0.05) -> None:
        self.now = 0.0
        self.step_seconds = step_seconds
        self.engine = EngineInMemory(max_num_sequences=places, target_step_seconds=0.0, kv_cache_tokens=1 << 16)
        config = EngineConfig(model="", max_num_sequences=places, target_step_seconds=0.0)
        self.admission = Admission(10_000, lambda: self.now)
        self.capacity = Capacity(config)
        self.unfinished: dict[str, Unfinished] = {}
        self.accepted_at: dict[str, float] = {}
        self.begun_at: dict[str, float] = {}
        self.context_length = self.engine.context_length
        self._num_events = 0

    def offer(self, request: GenerateRequest, terms: Terms) -> Overloaded | None:
        """Send a request; returns why it was refused."""
        try:
            self.admission.admit([request], terms, Load(self.capacity, self.unfinished.values(), self.context_length))
        except Overloaded as refusal:
            return refusal
        stream = TokenStream(request.request_id, lambda *_: None)
        self.unfinished[request.request_id] = Unfinished(request, stream, [], terms)
        self.accepted_at[request.request_id] = self.now
        self.engine.scheduler.add(request)
        return None

    def warm_up(self, take: Callable[[], GenerateRequest]) -> None:
        """Answer some requests, so that steps and lengths are known."""
        for _ in range(60):
            assert self.offer(take(), Terms()) is None
        while self.unfinished:
            self.step()

    def step(self) -> None:
        plan = self.engine.step()
        self.now += self.step_seconds
        events = self.engine.answers.events[self._num_events :]
        self._num_events += len(events)
        stats = EngineStats(
            running=self.engine.scheduler.num_running,
            waiting=self.engine.scheduler.num_waiting,
            cycle_seconds=self.step_seconds,
            step_tokens=plan.num_tokens,
        )
        self.capacity.observe(stats, events)
        for request_id in self.engine.scheduler.begun:
            self.begun_at[request_id] = self.now - self.step_seconds
            self.unfinished[request_id].stream.note_begun(self.now)
        for event in events:
            self.unfinished[event.request_id].take(event)
            if event.finish_reason:
                self.admission.note_end(self.unfinished.pop(event.request_id), event.finish_reason)
                self.capacity.forget_forecast()


def requests(prefix: str = "r") -> Callable[[], GenerateRequest]:
    """A source of different requests for 30 tokens each."""
    count = 0

    def take() -> GenerateRequest:
        nonlocal count
        count += 1
        return ask(f"{prefix}{count}", [count % 250, count // 250, len(prefix)], max_tokens=30)

    return take


@pytest.mark.parametrize(("places", "patience"), [(1, 10.0), (4, 5.0), (8, 20.0)])
def test_tickets_come_true(places: int, patience: float) -> None:
    """A client that is told 8 seconds would not have been accepted after 5, and is accepted after 12.

    Each of the clients asks again at every step with a request that leaves no trace, until it would be accepted.
    """
    server, take = VirtualServer(places=places), requests()
    terms = Terms(first_token=patience)
    server.warm_up(requests("warm"))
    while server.offer(take(), terms) is None:
        pass
    refused = [take() for _ in range(6)]
    told = {}
    for request in refused:
        refusal = server.offer(request, terms)
        assert refusal is not None
        if refusal.retry_after is not None:
            told[request.request_id] = (request, refusal.retry_after)
    assert told
    began = server.now
    for request, wait in sorted(told.values(), key=lambda item: item[1]):
        while server.now < began + wait - EARLY / 2:
            server.step()
        early = server.now - began
        while refusal := server.offer(request, terms):
            assert server.now - began < 1.5 * wait + 1, "refused long after its time"
            server.step()
        assert 1 / 1.5 <= (server.now - began + 0.5) / (early + 0.5) <= 1.5


def test_a_time_that_is_told_is_not_far_later_than_it_had_to_be() -> None:
    """The first ticket: alone, and asking all the time, its holder would not have come in much earlier."""
    told, came_in = [], []
    for asks_all_the_time in (False, True):
        server, take = VirtualServer(places=2), requests()
        terms = Terms(first_token=5.0)
        server.warm_up(requests("warm"))
        while not (refusal := server.offer(request := take(), terms)):
            pass
        told.append(refusal.retry_after)
        if asks_all_the_time:
            began = server.now
            while server.offer(ask(f"x{server.now}", request.prompt_token_ids, max_tokens=30), terms):
                server.admission._tickets = Tickets()
                server.step()
            came_in.append(server.now - began)
    assert told[0] == told[1]
    assert 1 / 1.5 <= (told[0] + 0.1) / (came_in[0] + 0.1) <= 1.5


def test_under_ten_times_the_load_all_that_is_accepted_begins_in_time_and_nothing_is_lost() -> None:
    """Two virtual minutes; half of the clients come back when they are told to, the others at once."""
    server, take = VirtualServer(places=4), requests()
    patience = 10.0
    returning: list[tuple[float, GenerateRequest, int]] = []
    offered, lost, steps = 0, 0, int(120 / server.step_seconds)
    for step in range(steps):
        due = [entry for entry in returning if entry[0] <= server.now]
        returning = [entry for entry in returning if entry[0] > server.now]
        # One place finishes an answer in about 30 steps, so 4 answers in 30 steps are what there is room for.
        arriving = [(take(), 0) for _ in range(4 if step % 3 == 0 else 0)]
        for request, count in [(entry[1], entry[2]) for entry in due] + arriving:
            offered += count == 0
            refusal = server.offer(request, Terms(first_token=patience, retry_count=count))
            if refusal is None:
                continue
            patient = int(request.request_id[1:]) % 2 == 0
            if count == 2 or (patient and refusal.retry_after is None):
                lost += 1
            else:
                wait = refusal.retry_after if patient else 0.1
                returning.append((server.now + wait, request, count + 1))
        server.step()
    capacity = steps * 4 / 31
    assert offered > 8 * capacity
    assert offered == lost + len(returning) + len(server.accepted_at)
    late = [
        request_id
        for request_id, begun in server.begun_at.items()
        if begun - server.accepted_at[request_id] > 1.1 * patience
    ]
    assert len(late) <= 0.02 * len(server.begun_at)
    ended = len(server.accepted_at) - len(server.unfinished)
    assert ended >= 0.9 * capacity, "places stood empty"
    while server.unfinished:
        server.step()
    assert set(server.engine.answers.ends) == set(server.accepted_at), "an accepted request is lost"


def test_those_with_a_ticket_go_before_those_without() -> None:
    server, take = VirtualServer(places=1), requests()
    terms = Terms(first_token=5.0, retry_count=0)
    server.warm_up(requests("warm"))
    while not (refusal := server.offer(holder := take(), terms)):
        pass
    began, wait = server.now, refusal.retry_after
    while server.now < began + wait - EARLY / 2:
        server.step()
        assert server.offer(take(), terms), "a newcomer was accepted before the holder of a ticket"
    assert server.offer(holder, Terms(first_token=5.0, retry_count=1)) is None

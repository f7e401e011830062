"""Refused requests get times of their own, in order and apart, and the times come true on an engine in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import ask
from virtual_server import VirtualServer

from antiphon.engine.admission.tickets import EARLY, GRACE, LONGEST, Holder, RetryBudget, Tickets
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
        wait = tickets.issue(Holder(identity), now, earliest, spacing)
        assert wait is None or 0 <= wait <= LONGEST
        given_out += wait is not None
        assert used + tickets.ahead(now, Holder(b"another")) <= given_out
    assert tickets.ahead(now + LONGEST + GRACE + 1, Holder(b"another")) == 0
    assert (tickets._of, tickets._num_of) == ({}, {}), "somebody is remembered without a ticket"


@given(st.floats(0, 20), st.floats(0.1, 2))
def test_tickets_given_out_at_once_are_apart(earliest: float, spacing: float) -> None:
    tickets = Tickets()
    waits = [tickets.issue(Holder(bytes([who])), 0.0, earliest, spacing) for who in range(10)]
    assert waits == pytest.approx([earliest + who * spacing for who in range(10)])


def test_another_clients_tickets_delay_a_request_by_its_fair_share_only() -> None:
    tickets = Tickets()
    for number in range(50):
        assert tickets.issue(Holder(bytes([number]), "flood", place=number + 1), 0.0, 0.0, 0.5) is not None
    assert tickets.ahead(0.0, Holder(b"x", "flood")) == 50
    assert tickets.ahead(0.0, Holder(b"x", "other", place=1)) == 1
    assert tickets.ahead(0.0, Holder(b"x", "other", place=7)) == 7
    assert tickets.issue(Holder(b"x", "other"), 0.0, 2.0, 0.5) == 2.5


def test_a_ticket_counts_from_shortly_before_its_time_until_a_while_after_it() -> None:
    for at, counts in ((5 - 2 * EARLY, False), (5 - EARLY / 2, True), (5 + GRACE / 2, True), (5 + 2 * GRACE, False)):
        tickets = Tickets()
        assert tickets.issue(Holder(b"a"), 0.0, 5.0, 1.0) == 5.0
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
    server.warm_up()
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


def test_where_several_engines_serve_them_the_refused_come_back_that_much_sooner_after_each_other() -> None:
    """Else most of the engines would be idle while their requests wait for a time that one engine alone needs."""
    spacings = []
    for num_engines in (1, 4):
        server, take = VirtualServer(places=2, num_engines=num_engines), requests()
        server.warm_up()
        while not (first := server.offer(take(), Terms(first_token=5.0))):
            pass
        second = server.offer(take(), Terms(first_token=5.0))
        assert second is not None
        assert first.retry_after is not None
        assert second.retry_after is not None
        spacings.append(second.retry_after - first.retry_after)
    assert spacings[0] == pytest.approx(4 * spacings[1])


def test_a_time_that_is_told_is_not_far_later_than_it_had_to_be() -> None:
    """The first ticket: alone, and asking all the time, its holder would not have come in much earlier."""
    told, came_in = [], []
    for asks_all_the_time in (False, True):
        server, take = VirtualServer(places=2), requests()
        terms = Terms(first_token=5.0)
        server.warm_up()
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
    server.warm_up()
    while not (refusal := server.offer(holder := take(), terms)):
        pass
    began, wait = server.now, refusal.retry_after
    while server.now < began + wait - EARLY / 2:
        server.step()
        assert server.offer(take(), terms), "a newcomer was accepted before the holder of a ticket"
    assert server.offer(holder, Terms(first_token=5.0, retry_count=1)) is None

"""A refusal before a body is decoded: only of what would be refused anyway, and a client's share of the queue."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import ask
from virtual_server import VirtualServer

from antiphon.errors import Overloaded
from antiphon.request import Arrival, ServiceTier, Terms

CLIENTS = ("", "a", "b")
patience = st.one_of(st.just(inf), st.floats(0.01, 20))
terms = st.builds(
    Terms,
    first_token=patience,
    whole_answer=patience,
    retry_count=st.sampled_from((None, 0, 1)),
    digest=st.sampled_from((b"", b"1", b"2", b"3")),
)
offers = st.tuples(
    terms,
    st.sampled_from(CLIENTS),
    st.integers(1, 3),  # weight
    st.sampled_from(ServiceTier),
    st.integers(1, 300),  # tokens of the prompt
    st.integers(1, 60),  # and of the answer
    st.integers(0, 3),  # steps before it
)


def refuse_early(server: VirtualServer, arrival: Arrival, terms: Terms) -> Overloaded | None:
    try:
        server.admission.check_early(arrival, terms, [server.load])
    except Overloaded as refusal:
        return refusal
    return None


@settings(max_examples=60)
@given(st.lists(offers, min_size=5, max_size=40), st.integers(1, 4))
def test_what_is_refused_before_it_is_decoded_would_have_been_refused_later(load, places) -> None:
    server = VirtualServer(places=places, max_requests=20)
    server.warm_up(4)
    for number, (terms, client, weight, tier, num_prompt, num_answer, num_steps) in enumerate(load):
        for _ in range(num_steps):
            server.step()
        arrival, terms = Arrival(num_prompt * 4, client, weight), replace(terms, client=client)
        refusal = refuse_early(server, arrival, terms)
        request = ask(
            f"r{number}", [number % 250] * num_prompt, max_tokens=num_answer, client=client, weight=weight, tier=tier
        )
        later = server.offer(request, terms)
        if refusal is not None:
            assert later is not None, refusal.message
            assert later.reason == refusal.reason


def busy_server() -> VirtualServer:
    """One place, taken by an answer that needs 20 seconds more."""
    server = VirtualServer(places=1, step_seconds=0.1)
    server.warm_up(4)
    assert server.offer(ask("long", [1], max_tokens=200, ignore_eos=True), Terms()) is None
    server.step()
    return server


def test_an_early_refusal_comes_with_a_ticket_and_its_holder_is_accepted() -> None:
    server = busy_server()
    first = Terms(first_token=5.0, client="me", retry_count=0, digest=b"body")
    refusal = refuse_early(server, Arrival(400), first)
    assert refusal is not None
    assert refusal.reason == "predicted_wait"
    assert refusal.predicted_wait > 5.0
    assert refusal.retry_after is not None
    retry = Terms(first_token=5.0, client="me", retry_count=1, digest=b"body")
    again = refuse_early(server, Arrival(400), retry)
    assert again is not None
    assert again.retry_after == pytest.approx(refusal.retry_after, abs=0.3), "another time was told"
    began = server.now
    while server.now < began + refusal.retry_after:
        server.step()
    assert refuse_early(server, Arrival(400), retry) is None
    assert server.offer(ask("mine", [5] * 100, max_tokens=10), retry) is None


def test_a_request_that_may_have_a_better_priority_is_not_refused_early_for_time() -> None:
    server = busy_server()
    hurried = Terms(first_token=0.5)
    assert refuse_early(server, Arrival(400, may_set_priority=True), hurried) is None
    assert server.offer(ask("first", [1], priority=-1), hurried) is not None
    assert refuse_early(server, Arrival(400), hurried) is not None


@pytest.mark.parametrize("digest", [b"", b"body"])
def test_beyond_the_limit_a_request_is_refused_early_whatever_its_patience(digest) -> None:
    server = VirtualServer(places=1, max_requests=1)
    assert server.offer(ask("only", [1]), Terms()) is None
    refusal = refuse_early(server, Arrival(400), Terms(digest=digest))
    assert refusal is not None
    assert refusal.reason == "queue_full"


def test_one_client_cannot_take_every_place_of_the_queue() -> None:
    server = VirtualServer(places=1, max_requests=100)
    numbers = count()

    def fill(client: str, weight: int = 1) -> int:
        for number in range(1000):
            refusal = server.offer(ask(f"r{next(numbers)}", [number], client=client, weight=weight), Terms())
            if refusal is not None:
                assert refusal.reason == "client_queue_full"
                assert f"You have {number} unfinished requests" in refusal.message
                assert refuse_early(server, Arrival(40, client, weight), Terms()) is not None
                return number
        raise AssertionError("nothing was refused")

    assert fill("flood") == 75
    assert fill("second") == 19  # three quarters of the rest
    assert fill("third") == 5
    assert server.offer(ask("one", [1], client="fourth"), Terms()) is None


def test_without_clients_the_whole_queue_can_be_used() -> None:
    server = VirtualServer(places=1, max_requests=100)
    assert all(server.offer(ask(f"r{number}", [number]), Terms()) is None for number in range(100))
    refusal = server.offer(ask("more", [1]), Terms())
    assert refusal is not None
    assert refusal.reason == "queue_full"


def test_the_refused_flood_of_one_client_does_not_shut_out_another() -> None:
    """The flood's tickets are for times of its own; the other client takes turns with it."""
    server = VirtualServer(places=2, step_seconds=0.1)
    server.warm_up()
    terms = Terms(first_token=10.0)
    refused = [server.offer(ask(f"f{number}", [number], client="flood"), terms) for number in range(200)]
    assert sum(refusal is not None and refusal.retry_after is not None for refusal in refused) > 20
    assert server.offer(ask("new", [1, 2, 3], client="other"), terms) is None
    began = server.now
    while "new" not in server.begun_at:
        server.step()
    assert server.begun_at["new"] - began <= 10.0


def test_a_client_that_comes_back_before_its_time_is_refused_before_its_body_is_decoded():
    server = busy_server()
    terms = Terms(first_token=12.0, client="a", digest=b"1")
    refusal = server.offer(ask("first", [1] * 5), terms)
    assert refusal is not None
    patient = replace(terms, first_token=1000.0)  # it would be accepted if it were not too early
    again = refuse_early(server, Arrival(4), patient)
    assert again is not None
    assert again.retry_after == pytest.approx(refusal.retry_after, abs=0.3)
    for other in ({"digest": b"2"}, {"client": "b"}, {"retry_count": 0}):
        assert refuse_early(server, Arrival(4), replace(patient, **other)) is None
    server.now += refusal.retry_after
    assert refuse_early(server, Arrival(4), patient) is None


def test_who_was_told_not_to_come_back_is_refused_for_some_seconds_without_looking():
    server = busy_server()
    terms = Terms(first_token=0.001, client="a", digest=b"1")
    while (refusal := server.offer(ask("r", [1] * 5), terms)) is not None and refusal.retry_after is not None:
        terms = replace(terms, digest=terms.digest + b"1")
    assert refusal is not None
    patient = replace(terms, first_token=1000.0, retry_count=1)
    assert refuse_early(server, Arrival(4), patient) is not None
    server.now += 3.0
    assert refuse_early(server, Arrival(4), patient) is not None, "which does not make the time longer"
    server.now += 2.5
    assert refuse_early(server, Arrival(4), patient) is None


def test_a_client_that_comes_too_early_is_accepted_where_an_engine_would_begin_at_once():
    server = busy_server()
    terms = Terms(first_token=1.0, client="a", digest=b"1")
    assert server.offer(ask("first", [1] * 5), terms) is not None
    assert refuse_early(server, Arrival(4), replace(terms, first_token=1000.0)) is not None
    while server.unfinished:
        server.step()
    server.now -= 20
    assert refuse_early(server, Arrival(4), terms) is None

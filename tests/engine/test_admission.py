"""Requests are accepted by the time they would wait; the refused ones get times that come true."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from math import inf

import pytest
from fronts import check_accounts, expected, long_requests, read, running_client, until
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import ask
from virtual_server import VirtualServer

from antiphon.engine.admission.admission import Admission
from antiphon.engine.admission.expected_work import ExpectedWork
from antiphon.engine.requests.admitted import Prediction
from antiphon.errors import Overloaded
from antiphon.request import Arrival, ServiceTier, Terms


async def test_a_request_that_would_wait_too_long_is_refused_and_one_that_waits_longer_is_not():
    async with running_client(max_num_sequences=1, step_seconds=0.02) as client:
        await read(client.generate(ask("first", [1], max_tokens=20)))  # now a step's cost is known
        running = client.generate(ask("long", [2], max_tokens=2000))
        await until(lambda: client.stats.running == 1)
        with pytest.raises(Overloaded, match="first token would come in about") as refusal:
            client.generate(ask("hurried", [3]), Terms(first_token=1.0))
        assert refusal.value.reason == "predicted_wait"
        assert refusal.value.predicted_wait > 1.0
        patient = client.generate(ask("patient", [4]), Terms(first_token=1000.0))
        assert patient.predicted_wait < 1000.0
        await patient.aclose()
        await running.aclose()
        check_accounts(client.counters)
        assert client.counters.refused == 1


async def test_what_begins_at_once_is_accepted_however_long_it_takes():
    async with running_client(max_num_sequences=2, step_seconds=0.02) as client:
        await read(client.generate(ask("first", [1], max_tokens=20)))
        running = client.generate(ask("long", [2], max_tokens=2000))
        await until(lambda: client.stats.running == 1)
        hurried = client.generate(ask("hurried", [3] * 2000), Terms(first_token=0.001, whole_answer=0.001))
        assert hurried.predicted_wait > 0.001
        await until(lambda: hurried.begun_at is not None or client.counters.failed == 1)
        await hurried.aclose()
        await running.aclose()


async def test_a_request_whose_turn_does_not_come_ends_with_an_error_and_frees_its_place():
    """Its prediction was too early, as nothing was measured yet."""
    async with running_client(max_num_sequences=1, step_seconds=0.01) as client:
        running = client.generate(ask("long", [2], max_tokens=2000))
        late = client.generate(ask("late", [3]), Terms(first_token=0.3))
        with pytest.raises(Overloaded, match="would now be too late") as refusal:
            await read(late)
        assert refusal.value.reason == "queue_timeout"
        await until(lambda: client.stats.waiting == 0)
        assert (client.counters.failed, client.counters.running) == (1, 1)
        await running.aclose()
        check_accounts(client.counters)


async def test_an_answer_that_has_begun_is_never_dropped():
    async with running_client(max_num_sequences=4, step_seconds=0.01) as client:
        requests = long_requests(4, max_tokens=60)
        streams = client.generate_all(requests, Terms(first_token=0.2))
        await until(lambda: client.stats.running == 4)
        answers = await asyncio.gather(*(read(stream) for stream in streams))
        assert answers == [expected(request) for request in requests]


async def test_of_requests_that_belong_together_none_is_dropped_once_one_has_begun():
    async with running_client(max_num_sequences=1, step_seconds=0.01) as client:
        requests = long_requests(2, max_tokens=150)
        streams = client.generate_all(requests, Terms(first_token=0.2))  # accepted, as nothing was measured yet
        answers = await asyncio.gather(*(read(stream) for stream in streams))
        assert answers == [expected(request) for request in requests]
        assert streams[1].begun_at - streams[0].begun_at > 0.2 + 0.5


async def test_with_several_engines_a_request_waits_for_the_one_that_it_would_get():
    """Nobody is refused while one of them is idle, and early only if all are busy."""
    async with running_client(engines=2, max_num_sequences=1, step_seconds=0.02) as client:
        await asyncio.gather(*(read(client.generate(ask(name, [1], max_tokens=20))) for name in "ab"))
        hurried, arrival = Terms(first_token=1.0), Arrival(num_bytes=40)
        streams = []
        for name in ("first", "second"):
            client.check_early(arrival, hurried)
            streams.append(client.generate(ask(name, [2], max_tokens=2000, ignore_eos=True), hurried))
        await until(lambda: client.stats.running == 2)
        with pytest.raises(Overloaded) as refusal:
            client.check_early(arrival, hurried)
        assert refusal.value.predicted_wait > 1.0
        with pytest.raises(Overloaded):
            client.generate(ask("third", [3]), hurried)
        for stream in streams:
            await stream.aclose()


async def test_a_request_that_can_no_longer_end_in_time_is_not_begun():
    """It was accepted, since the answer before it was expected to be short."""
    async with running_client(max_num_sequences=1, step_seconds=0.02) as client:
        await read(client.generate(ask("first", [1], max_tokens=20)))
        running = client.generate(ask("long", [2], max_tokens=2000))
        for _ in range(300):
            client._admission.lengths.plain.observe(20, is_complete=True)
        await until(lambda: client.stats.running == 1)
        late = client.generate(ask("late", [3], max_tokens=100, ignore_eos=True), Terms(whole_answer=4.0))
        unfinished = client._accounts.unfinished["late"]
        (engine,) = client._fleet.engines.values()
        assert 0 < client._admission.time_left(unfinished, client._workload.load_before(engine)) < 3.0
        with pytest.raises(Overloaded, match="would now be too late") as refusal:
            await read(late)
        assert refusal.value.reason == "queue_timeout"
        await running.aclose()


def test_what_is_left_of_a_clients_patience_for_the_queue_is_without_the_time_that_its_answer_takes():
    predicted = Prediction(wait=10.0, first_token=12.0, end=15.0)
    for terms, seconds in (
        (Terms(), inf),
        (Terms(first_token=20.0), 18.0),
        (Terms(first_token=20.0, whole_answer=21.0), 16.0),
        (Terms(first_token=11.0), 11.0),  # late already when it was accepted, with a ticket: all that there is
    ):
        assert Admission(1).start_before(terms, predicted) == seconds


async def test_requests_that_belong_together_are_accepted_together():
    async with running_client(max_queued_requests=4) as client:
        kept = client.generate_all(long_requests(2, max_tokens=2000))
        three = [replace(request, request_id=f"x{request.request_id}") for request in long_requests(3)]
        with pytest.raises(Overloaded, match="limit of 4"):
            client.generate_all(three)
        assert (client.counters.received, client.counters.refused, client.counters.running) == (5, 3, 2)
        for stream in kept:
            await stream.aclose()


async def test_tokens_owed_fall_to_nothing():
    async with running_client(step_seconds=0.001) as client:
        assert client.tokens_owed == 0
        stream = client.generate(ask("a", [1] * 40, max_tokens=30))
        assert 40 < client.tokens_owed <= 70
        await read(stream)
        assert client.tokens_owed == 0


async def test_a_refusal_costs_little():
    """Beside a full queue: the processor time of one, all in all."""
    async with running_client(max_num_sequences=4, step_seconds=0.05) as client:
        await read(client.generate(ask("first", [1], max_tokens=20)))
        streams = [client.generate(ask(f"r{n}", [n], max_tokens=4000)) for n in range(200)]
        began, num_refused = time.process_time(), 0
        for n in range(100):
            with pytest.raises(Overloaded):
                client.generate(ask(f"x{n}", [n] * 1000), Terms(first_token=1.0))
            num_refused += 1
        assert (time.process_time() - began) / num_refused < 0.05
        for stream in streams:
            await stream.aclose()


async def test_without_terms_nobody_is_refused_for_time():
    async with running_client(max_num_sequences=1, step_seconds=0.01) as client:
        assert Terms().first_token == Terms().whole_answer == inf
        streams = [client.generate(ask(f"r{n}", [n], max_tokens=4000)) for n in range(100)]
        for stream in streams:
            await stream.aclose()


bursts = st.lists(
    st.tuples(
        st.sampled_from(["", "ann", "ben"]),
        st.integers(0, 1),  # priority
        st.sampled_from(ServiceTier),
        st.integers(1, 60),  # tokens of the prompt
        st.integers(0, 5),  # tokens of the answer that are known
        st.integers(0, 2),  # steps after it
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(bursts, st.integers(1, 4))
def test_newcomers_that_are_added_to_the_forecast_get_the_same_predictions_as_if_it_was_made_again(
    burst: list[tuple[str, int, ServiceTier, int, int, int]], places: int
) -> None:
    outcomes = []
    for only_grows in (True, False):
        server = VirtualServer(places=places, token_seconds=0.001, only_grows=only_grows)
        server.warm_up(3)
        refused = []
        for number, (client, priority, tier, length, known, num_steps) in enumerate(burst):
            request = ask(
                f"r{number}",
                [number % 50] * length,
                sent=[7] * known,
                max_tokens=30,
                priority=priority,
                client=client,
                tier=tier,
            )
            refused.append(server.offer(request, Terms(first_token=2.0)) is not None)
            for _ in range(num_steps):
                server.step()
        outcomes.append((server.predicted, refused))
    assert outcomes[0] == outcomes[1]


def test_accepting_many_requests_between_two_steps_looks_at_each_of_them_once(monkeypatch) -> None:
    server = VirtualServer(places=4)
    server.warm_up(8)
    looks: list[object] = []
    estimate = ExpectedWork._left_to_write
    monkeypatch.setattr(ExpectedWork, "_left_to_write", lambda self, *args: looks.append(args) or estimate(self, *args))
    for number in range(200):
        assert server.offer(ask(f"r{number}", [number, 1], max_tokens=30), Terms()) is None
    assert len(looks) <= 200

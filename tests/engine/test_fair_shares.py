"""Fair shares: clients that compete get equal service within a bound, nobody starves, and no step is wasted."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from loads import EngineInMemory, ask
from property_tests import examples

from antiphon.engine.service import INPUT_WEIGHT, OUTPUT_WEIGHT
from antiphon.engine.worker.sequence import Sequence
from antiphon.engine.worker.shares import FairShares
from antiphon.engine.worker.turns import QUANTUM, max_lead
from antiphon.request import GenerateRequest, ServiceTier
from antiphon.step import StepPlan

FLEX = ServiceTier.FLEX


class CountingEngine(EngineInMemory):
    """Counts every client's service anew, from the plans alone, and insists that no step is wasted."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"target_step_seconds": 0.0, **settings})
        self.service: Counter[str] = Counter()  # weighted tokens, not divided by the client's weight
        self.requests: list[GenerateRequest] = []
        self._reached: Counter[int] = Counter()

    def add(self, request: GenerateRequest) -> None:
        self.requests.append(request)
        self.scheduler.add(request)

    def flood(self, client: str, count: int, *, prompt: int = 4, **fields: object) -> None:
        """Add requests whose prompts share no block."""
        for _ in range(count):
            number = len(self.requests)
            tokens = [number % 251, number // 251, *range(2, prompt)][:prompt]
            self.add(ask(f"{client}{number}", tokens, client=client, **fields))  # type: ignore[arg-type]

    def step(self) -> StepPlan:
        plan = super().step()
        for entry in plan.sequences:
            request = self.requests[entry.sequence_id]
            start = max(entry.num_computed_tokens, self._reached[entry.sequence_id])
            end = entry.num_computed_tokens + len(entry.token_ids)
            self._reached[entry.sequence_id] = max(start, end)
            known = len(request.prompt_token_ids) + len(request.output_token_ids)
            num_input, num_output = max(0, min(end, known) - start), len(entry.samples)
            self.service[request.fairness_id] += INPUT_WEIGHT * num_input + OUTPUT_WEIGHT * num_output
        return plan

    def _check_plan(self, plan: StepPlan) -> None:
        """Called between planning and computing, when the scheduler's state is that of the plan."""
        super()._check_plan(plan)
        turns = self.scheduler._turns
        chunk = self.config.prefill_chunk or self.context_length
        wanted = sum(min(sequence.gap, chunk) for sequence in turns.running)
        assert plan.num_tokens == min(wanted, self.config.max_batch_tokens), "somebody could have used the rest"
        first = turns.first_waiting
        if first and turns.num_running < self.scheduler._max_running:
            can_start = self.scheduler._kv_cache.can_start(first, turns.num_running)
            assert not can_start, "a place and blocks were left, and somebody waits"

    @property
    def lead(self) -> float:
        return max_lead(self.scheduler._max_running, self.config.max_batch_tokens, self.context_length)

    def begun(self) -> list[str]:
        """Requests that were ever computed, in that order."""
        return [self.requests[number].request_id for number in dict.fromkeys(self._order())]

    def _order(self) -> list[int]:
        return [entry.sequence_id for plan in self.plans for entry in plan.sequences]

    def steps_until_begun(self, request_id: str, most: int = 10_000) -> int:
        for num_steps in range(1, most):
            self.step()
            if request_id in self.scheduler.begun:
                return num_steps
        raise AssertionError(f"{request_id} did not begin in {most} steps")


def crowded(**settings: object) -> CountingEngine:
    """Few places, and more than enough blocks for them."""
    limits = {"max_num_sequences": 4, "max_batch_tokens": 16, "context_length": 600, "kv_cache_tokens": 4096}
    return CountingEngine(**{**limits, **settings})


def test_a_newcomer_begins_at_once_beside_a_flood_of_long_answers():
    engine = crowded()
    engine.flood("greedy", 200, max_tokens=500)
    for _ in range(50):
        engine.step()
    engine.add(ask("modest", [7] * 10, client="modest"))
    assert engine.steps_until_begun("modest") == 1


def test_without_fair_shares_it_waits_for_the_flood():
    engine = crowded()
    engine.flood("", 40, max_tokens=100)
    for _ in range(50):
        engine.step()
    engine.add(ask("modest", [7] * 10))
    assert engine.steps_until_begun("modest") == 40 / 4 * 100 - 50 + 1


def test_places_are_shared_evenly_and_by_weight():
    for weight, places in ((1, [4, 4]), (3, [6, 2])):
        engine = crowded(max_num_sequences=8)
        engine.flood("a", 50, max_tokens=100, weight=weight)
        engine.step()
        engine.flood("b", 50, max_tokens=100)
        engine.step()
        running = Counter(sequence.request.fairness_id for sequence in engine.scheduler._turns.running)
        assert abs(running["a"] - places[0]) <= 1
        assert running["a"] + running["b"] == 8
        before = engine.service.copy()
        for _ in range(300):
            engine.step()
        service = engine.service - before
        assert service["a"] / service["b"] == pytest.approx(weight, rel=0.2)


def test_a_key_pays_for_its_prompts_too():
    """One sends long prompts with short answers, the other the reverse: the same service in the end."""
    engine = crowded()
    engine.flood("reader", 100, prompt=200, max_tokens=1)
    engine.flood("writer", 100, prompt=2, max_tokens=200)
    for _ in range(400):
        engine.step()
    assert engine.scheduler.num_waiting > 100
    assert abs(engine.service["reader"] - engine.service["writer"]) <= 2 * engine.lead
    assert abs(engine.service["reader"] - engine.service["writer"]) < engine.service["reader"] / 3


def test_idling_earns_no_credit():
    engine = crowded()
    engine.add(ask("early", [1], client="idle", max_tokens=1))
    engine.flood("busy", 100, max_tokens=100)
    for _ in range(500):
        engine.step()
    engine.flood("idle", 100, max_tokens=100)
    before = engine.service.copy()
    for _ in range(200):
        engine.step()
    service = engine.service - before
    assert abs(service["idle"] - service["busy"]) <= 2 * QUANTUM


def test_nobody_pays_for_what_it_used_while_nobody_else_was_waiting():
    shares = FairShares(100.0)
    first = {client: Sequence(number, ask(client, [1], client=client)) for number, client in enumerate("abc")}
    for sequence in first.values():
        shares.wait(sequence)
        shares.start(sequence)
    for client, num_output in (("a", 10_000), ("b", 20), ("c", 10)):
        shares.charge(first[client], num_output=num_output)
    for number, client in enumerate("bca", start=3):
        shares.wait(Sequence(number, ask(f"{client}2", [1], client=client)))
    counters = {client: shares.of(first[client]).counter for client in "abc"}
    assert counters == {"b": 40.0, "c": 40.0, "a": 140.0}


def test_going_and_coming_back_resets_nothing():
    """One that sends its next request only when the last has ended competes with one that always has some waiting."""
    engine = crowded(max_num_sequences=1)
    engine.flood("crowd", 100, max_tokens=64)
    for number in range(30):
        name = f"single{number}"
        engine.add(ask(name, [9, number], client="single", max_tokens=64))
        while name not in engine.answers.ends:
            engine.step()
    assert engine.service["single"] <= engine.service["crowd"] + 2 * engine.lead
    assert engine.service["crowd"] <= engine.service["single"] + 2 * engine.lead


def test_the_client_furthest_ahead_is_preempted_first():
    engine = CountingEngine(block_size=4, kv_cache_tokens=48, max_num_sequences=3)
    engine.flood("ahead", 1, max_tokens=20)
    for _ in range(12):
        engine.step()
    engine.flood("behind", 2, max_tokens=30)
    while not engine.scheduler.counts.num_preemptions:
        engine.step()
    # The first of "behind" arrived later, but its client had less.
    assert "ahead0" not in {sequence.request_id for sequence in engine.scheduler._turns.running}
    engine.run()
    for request in engine.requests:
        assert engine.answers.of(request.request_id) == engine.expected(request)


def test_only_what_was_computed_is_charged_and_only_once(monkeypatch):
    charged: Counter[str] = Counter()
    charge = FairShares.charge

    def noting(self, sequence, *, num_input=0, num_output=0):
        charged[sequence.request.fairness_id] += INPUT_WEIGHT * num_input + OUTPUT_WEIGHT * num_output
        charge(self, sequence, num_input=num_input, num_output=num_output)

    monkeypatch.setattr(FairShares, "charge", noting)
    engine = CountingEngine(block_size=4, kv_cache_tokens=40)
    for number, name in enumerate(("old", "young", "late")):
        engine.add(ask(name, [number] * 9, max_tokens=20, client=name))
    engine.run()
    assert engine.scheduler.counts.num_preemptions > 0
    assert engine.scheduler.counts.num_computed_tokens > 3 * (9 + 19), "nothing was computed again"
    assert charged == engine.service == dict.fromkeys(("old", "young", "late"), 9 * INPUT_WEIGHT + 20 * OUTPUT_WEIGHT)


def test_cached_tokens_cost_nothing():
    engine = CountingEngine(block_size=4)
    engine.add(ask("present", [5], client="present", max_tokens=100))
    engine.add(ask("cold", [*range(20)], client="cold", max_tokens=1))
    engine.step()
    engine.add(ask("warm", [*range(20)], client="warm", max_tokens=1))
    engine.step()
    shares = engine.scheduler._turns._shares
    assert shares._absent["cold"] == 20 * INPUT_WEIGHT + OUTPUT_WEIGHT
    lift = next(iter(shares)).counter - OUTPUT_WEIGHT  # the present one's counter when "warm" came
    assert shares._absent["warm"] == lift + 4 * INPUT_WEIGHT + OUTPUT_WEIGHT


def test_a_resumed_request_is_charged_for_what_this_engine_computes():
    """Its known tokens are input here, whoever generated them: the counters died with the engine that did."""
    engine = CountingEngine()
    engine.add(ask("present", [5], client="present", max_tokens=100))
    engine.add(ask("resumed", [1] * 10, sent=[2] * 5, client="resumed", max_tokens=7))
    for _ in range(3):
        engine.step()
    assert engine.scheduler._turns._shares._absent["resumed"] == 15 * INPUT_WEIGHT + 2 * OUTPUT_WEIGHT


def test_counters_are_forgotten_when_the_engine_is_idle():
    engine = CountingEngine()
    engine.flood("a", 3, max_tokens=5)
    engine.flood("b", 3, max_tokens=8)
    engine.run()
    shares = engine.scheduler._turns._shares
    assert not shares._present
    assert not shares._absent


def test_the_counters_of_those_who_left_are_bounded():
    shares = FairShares(100.0)
    shares.wait(Sequence(0, ask("present", [1], client="present")))
    for number in range(5000):
        sequence = Sequence(number + 1, ask("x", [1], client=str(number)))
        shares.wait(sequence)
        shares.remove(sequence)
    assert len(shares._absent) == 4096


@pytest.mark.parametrize("caching", [True, False])
def test_clients_with_long_contexts_do_not_keep_preempting_each_other(caching):
    """Blocks for one of them only: computing tokens again never takes more than computing them did."""
    engine = crowded(block_size=4, kv_cache_tokens=600, prefix_caching=caching)
    for client in "ab":
        engine.flood(client, 2, prompt=200, max_tokens=250)
    engine.run()
    useful = 4 * (200 + 249)
    assert engine.scheduler.counts.num_computed_tokens <= 2 * useful


def test_short_prompts_are_no_way_around_the_shares():
    """One client sends nothing but short prompts; it gets no more of the prefill than its tenth."""
    engine = crowded(max_num_sequences=64, kv_cache_tokens=60_000)
    engine.flood("long", 8, prompt=240, max_tokens=1, weight=9)
    for _ in range(100):
        engine.flood("short", 1, prompt=6, max_tokens=1)
        engine.step()
    assert abs(engine.service["long"] / 9 - engine.service["short"]) <= QUANTUM + 2 * engine.config.max_batch_tokens


def test_flex_goes_last_and_gives_up_its_place():
    engine = crowded(max_num_sequences=1, block_size=4)
    engine.add(ask("flex", [1], tier=FLEX, max_tokens=50))
    engine.step()
    engine.add(ask("later flex", [2], tier=FLEX))
    engine.add(ask("ordinary", [3]))
    engine.run()
    assert list(engine.answers.ends) == ["ordinary", "flex", "later flex"]
    for request in engine.requests:
        assert engine.answers.of(request.request_id) == engine.expected(request)


def test_priority_comes_before_tier_and_tier_before_shares():
    engine = crowded(max_num_sequences=1)
    engine.add(ask("runs", [1], client="a", priority=-9))
    engine.step()
    engine.add(ask("flex of a new client", [1], client="b", tier=FLEX))
    engine.add(ask("ordinary", [1], client="a"))
    engine.add(ask("urgent flex", [1], client="a", tier=FLEX, priority=-1))
    engine.run()
    assert list(engine.answers.ends) == ["runs", "urgent flex", "ordinary", "flex of a new client"]


@pytest.mark.parametrize("client", ["", "other"])
def test_flex_does_not_starve(client):
    """Ordinary requests keep arriving, faster than they are served."""
    engine = crowded(max_num_sequences=1, flex_steps=40)
    engine.add(ask("flex", [1], tier=FLEX, client=client, max_tokens=2))
    for _ in range(200):
        engine.flood("", 1, max_tokens=4)
        engine.step()
        if "flex" in engine.answers.ends:
            break
    assert 40 <= len(engine.plans) <= 50


def test_one_client_is_served_in_order_of_arrival():
    orders = []
    for client in ("", "only"):
        engine = crowded(block_size=4, kv_cache_tokens=64)
        engine.flood(client, 20, prompt=5, max_tokens=9)
        engine.run()
        orders.append(
            [[(entry.sequence_id, len(entry.token_ids)) for entry in plan.sequences] for plan in engine.plans]
        )
        assert [int(request_id.removeprefix(client)) for request_id in engine.begun()] == [*range(20)]
    assert orders[0] == orders[1]


class FairMachine(RuleBasedStateMachine):
    """Clients of different weights flood a small engine; service is counted while both of a pair have some waiting."""

    @initialize(
        blocks=st.integers(7, 40),  # the longest prompt fits
        block_size=st.sampled_from([2, 4]),
        batch=st.integers(1, 24),
        chunk=st.integers(0, 5),
        places=st.integers(1, 5),
        caching=st.booleans(),
        weights=st.lists(st.sampled_from([1, 1, 2, 7]), min_size=4, max_size=4),
    )
    def start(self, blocks, block_size, batch, chunk, places, caching, weights):
        self.engine = CountingEngine(
            kv_cache_tokens=blocks * block_size,
            block_size=block_size,
            max_batch_tokens=batch,
            prefill_chunk=chunk,
            max_num_sequences=places,
            prefix_caching=caching,
            context_length=20,
        )
        self.weights = dict(zip("abcd", weights, strict=True))
        self.since: dict[tuple[str, str], Counter[str]] = {}  # pairs that both wait → their service when they began to

    @rule(
        client=st.sampled_from("abcd"),
        count=st.sampled_from([1, 2, 80]),
        prompt=st.integers(1, 12),
        max_tokens=st.integers(1, 19),
    )
    def flood(self, client, count, prompt, max_tokens):
        self.engine.flood(client, count, prompt=prompt, max_tokens=max_tokens, weight=self.weights[client])
        self._note()

    @rule(client=st.sampled_from("abcd"))
    def abort_all(self, client):
        for request in self.engine.requests:
            if request.fairness_id == client:
                self.engine.scheduler.abort(request.request_id)
        self._note()

    @rule(steps=st.sampled_from([1, 5, 60]))
    def step(self, steps):
        for _ in range(steps):
            self.engine.step()
            self._note()

    @invariant()
    def nobody_gets_more_than_the_bound_beyond_another(self):
        if not hasattr(self, "engine"):
            return
        counters = [share.counter for share in self.engine.scheduler._turns._shares if share.waiting]
        assert not counters or max(counters) - min(counters) <= self.engine.lead
        for (one, other), before in self.since.items():
            service = {name: (self.engine.service[name] - before[name]) / self.weights[name] for name in (one, other)}
            assert abs(service[one] - service[other]) <= 2 * self.engine.lead

    def _note(self) -> None:
        waiting = {sequence.request.fairness_id for sequence in self.engine.scheduler._turns.waiting}
        pairs = [*combinations(sorted(waiting), 2)]
        now = self.engine.service.copy()
        self.since = {pair: self.since.get(pair, now) for pair in pairs}

    def teardown(self):
        """Nobody starves, and the answers are those that no load may change."""
        if not hasattr(self, "engine"):
            return
        self.engine.run()
        for request in self.engine.requests:
            if self.engine.answers.of(request.request_id).finish_reason != "abort":
                assert self.engine.answers.of(request.request_id) == self.engine.expected(request)


TestFairness = FairMachine.TestCase
TestFairness.settings = hypothesis_settings(max_examples=examples(30), stateful_step_count=12)


def test_service_from_another_server_counts_for_those_that_are_known_here():
    shares = FairShares(max_lead=100.0)
    first, second = (Sequence(number, ask(client, [1], client=client)) for number, client in enumerate("ab"))
    shares.wait(first)
    shares.wait(second)
    shares.charge_elsewhere("a", 50.0)
    shares.charge_elsewhere("unknown", 50.0)
    assert shares.of(first).counter == 50.0
    assert shares.of(second).counter == 0.0
    shares.remove(first)
    shares.charge_elsewhere("a", 25.0)
    shares.wait(first)
    assert shares.of(first).counter == 75.0  # going and coming back does not reset it

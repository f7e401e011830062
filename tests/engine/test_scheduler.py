"""The scheduler against a fake runner that reads back what it stored: the same under any load, nothing vanishes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from loads import Answer, EngineInMemory, ask, oracle_drafts
from property_tests import examples

from antiphon.engine.worker.sequence import Sequence
from antiphon.request import FinishReason, GenerateRequest, ServiceTier, ThinkingLimit
from antiphon.step import SampleSpec

EOS = 10  # the fake model's newline


def eight_requests() -> list[GenerateRequest]:
    return [ask(f"r{n}", [n + 1] * (5 + 7 * n), temperature=0.6, seed=n, max_tokens=20) for n in range(8)]


@pytest.mark.parametrize(
    "load",
    [
        {"prefill_chunk": 7},
        {"max_batch_tokens": 3},
        {"max_num_sequences": 1},
        {"kv_cache_tokens": 96},  # as long as the longest: everything else is preempted
        {"prefix_caching": False},
        {"block_size": 1},
    ],
    ids=str,
)
def test_same_under_any_load(load):
    engine = EngineInMemory(**({"block_size": 4} | load))
    requests = eight_requests()
    answers = engine.run(*requests)
    for request in requests:
        assert answers.of(request.request_id) == engine.expected(request)


@pytest.mark.parametrize("load", [{}, {"kv_cache_tokens": 96}, {"max_batch_tokens": 9}, {"block_size": 1}], ids=str)
def test_the_same_tokens_with_drafts_in_fewer_steps(load):
    plain, drafting = (
        EngineInMemory(**({"block_size": 4} | load), speculation=how) for how in (None, oracle_drafts(1))
    )
    for engine in (plain, drafting):
        answers = engine.run(*eight_requests())
        for request in eight_requests():
            assert answers.of(request.request_id) == engine.expected(request)
    assert len(drafting.plans) < len(plain.plans)


@pytest.mark.parametrize("load", [{}, {"kv_cache_tokens": 96}, {"max_batch_tokens": 9}, {"block_size": 1}], ids=str)
def test_the_same_tokens_when_steps_are_planned_ahead(load):
    engine = EngineInMemory(**({"block_size": 4, "eos_token_id": EOS, "eos_odds": 15} | load), looks_ahead=True)
    answers = engine.run(*eight_requests())
    for request in eight_requests():
        assert answers.of(request.request_id) == engine.expected(request)
    assert engine.num_ahead > 5


def test_with_one_request_every_step_but_the_first_is_planned_ahead():
    engine = EngineInMemory(looks_ahead=True)
    engine.run(ask("a", [1, 2, 3], max_tokens=20))
    assert (len(engine.plans), engine.num_ahead) == (20, 19)


def test_what_depends_on_the_pending_token_is_not_planned_ahead():
    engine = EngineInMemory(looks_ahead=True)
    engine.run(ask("a", [1, 2, 3], max_tokens=20, presence_penalty=0.5))
    assert engine.num_ahead == 0


@pytest.mark.parametrize(
    "sampling", [{"presence_penalty": 0.5}, {"num_logprobs": 1}, {"logit_bias": {65: 0.5}}], ids=str
)
def test_a_request_that_has_to_be_waited_for_takes_every_second_step_and_the_others_all(sampling):
    engine = EngineInMemory(looks_ahead=True)
    others = [ask(f"r{n}", [n + 1, 2, 3], max_tokens=20) for n in range(3)]
    answers = engine.run(*others, special := ask("special", [9], max_tokens=10, **sampling))
    for request in (*others, special):
        assert answers.of(request.request_id) == engine.expected(request)
    assert engine.num_ahead == 19
    assert [len(plan.sequences) for plan in engine.plans] == [4, 3] * 10


def test_if_more_than_a_third_have_to_be_waited_for_no_step_is_planned_ahead():
    engine = EngineInMemory(looks_ahead=True)
    special = [ask(f"s{n}", [n + 1, 2], max_tokens=9, presence_penalty=0.5) for n in range(2)]
    engine.run(*special, *(ask(f"r{n}", [n + 1, 2, 3], max_tokens=9) for n in range(3)))
    assert engine.num_ahead == 0


def test_the_end_of_one_thought_makes_the_others_wait_for_nothing():
    thinking = ThinkingLimit(50, (32, 46), ((46,),))
    engine = EngineInMemory(looks_ahead=True, script=(65, 66, 46, 67), eos_token_id=EOS)
    requests = [ask("a", [1, 2, 3], max_tokens=10, thinking=thinking), ask("b", [4], max_tokens=15)]
    answers = engine.run(*requests)
    for request in requests:
        assert answers.of(request.request_id) == engine.expected(request)
    assert (len(engine.plans), engine.num_ahead) == (15, 14)


def test_a_step_planned_ahead_of_the_end_of_a_thought_is_computed_again():
    """The end of the sequence is masked while a thought is open, which the step ahead expects it to stay."""
    thinking = ThinkingLimit(50, (32, 46), ((46,),))
    engine = EngineInMemory(looks_ahead=True, script=(65, 66, 46, 67), eos_token_id=EOS)
    answers = engine.run(request := ask("a", [1, 2, 3], max_tokens=10, thinking=thinking))
    assert answers.of("a") == engine.expected(request)
    assert len(engine.plans) == 10 + 1  # one is computed again


def test_a_request_that_is_aborted_while_its_steps_run_leaves_nothing():
    engine = EngineInMemory(looks_ahead=True)
    for name in ("stays", "goes"):
        engine.scheduler.add(ask(name, [1, 2, 3], max_tokens=9))
    engine.step()
    assert engine.submitted
    engine.scheduler.abort("goes")
    engine.run()
    assert engine.answers.ends["goes"].finish_reason is FinishReason.ABORT
    assert engine.answers.of("stays") == engine.expected(ask("stays", [1, 2, 3], max_tokens=9))


def test_a_newcomer_that_fits_starts_as_soon_as_the_running_step_is_over():
    engine = EngineInMemory(looks_ahead=True)
    engine.scheduler.add(ask("first", [1, 2, 3], max_tokens=30))
    for _ in range(3):
        engine.step()
    engine.scheduler.add(ask("second", [4, 5], max_tokens=3))
    engine.step()  # was submitted before
    assert len(engine.step().sequences) == 2


def test_who_waits_for_a_place_gets_a_step_planned_with_all_that_is_known_now_and_then():
    engine = EngineInMemory(looks_ahead=True, max_num_sequences=1)
    engine.run(ask("a", [1, 2, 3], max_tokens=40), ask("b", [1, 2, 3], max_tokens=2))
    assert 30 < engine.num_ahead < 37  # of 39


def test_same_with_a_warm_cache():
    engine = EngineInMemory(block_size=4)
    cold, warm = ask("cold", [*range(20)]), ask("warm", [*range(20)])
    engine.run(cold)
    answers = engine.run(warm)
    assert answers.of("warm") == answers.of("cold") == engine.expected(cold)
    assert sum(plan.num_tokens for plan in engine.plans) == 2 * (20 + 7) - 16


def test_the_first_event_says_how_much_was_cached():
    engine = EngineInMemory(block_size=4)
    engine.run(ask("cold", [*range(20)]))
    engine.run(ask("warm", [*range(18), 99], max_tokens=3))
    assert [event.num_cached_tokens for event in engine.answers.events if event.request_id == "warm"] == [16, 0, 0]


def test_choices_of_one_prompt_compute_it_once():
    engine = EngineInMemory(block_size=4)
    engine.run(*(ask(f"c{n}", [*range(41)], temperature=1.0, seed=n, max_tokens=1) for n in range(8)))
    assert sum(plan.num_tokens for plan in engine.plans) == 41 + 7


def test_decoding_comes_before_prefill_in_the_budget():
    engine = EngineInMemory(max_batch_tokens=16, target_step_seconds=0.0)
    for n in range(3):
        engine.scheduler.add(ask(f"short{n}", [n], max_tokens=30))
    engine.step()
    engine.scheduler.add(ask("long", [9] * 40))
    assert [len(entry.token_ids) for entry in engine.step().sequences] == [1, 1, 1, 13]


def test_the_latest_arrived_is_preempted_and_goes_first_again():
    engine = EngineInMemory(block_size=4, kv_cache_tokens=40)
    requests = [ask(name, [n] * 9, max_tokens=20) for n, name in enumerate(("old", "young", "late"))]
    engine.run(*requests)
    assert engine.scheduler.counts.num_preemptions > 0
    assert list(engine.answers.ends) == ["old", "young", "late"]


def test_lower_priorities_go_first_and_equals_as_they_came():
    engine = EngineInMemory(max_num_sequences=1)
    engine.scheduler.add(ask("runs", [1]))
    engine.step()
    for name, priority in (("b", 0), ("d", 7), ("c", 0), ("a", -3), ("e", 7)):
        engine.scheduler.add(ask(name, [1], priority=priority))
    engine.run()
    assert list(engine.answers.ends) == ["runs", "a", "b", "c", "d", "e"]
    assert engine.scheduler.counts.num_preemptions == 0


def test_the_last_of_the_lowest_priority_is_preempted_and_waits_behind_higher_ones():
    engine = EngineInMemory(block_size=4, kv_cache_tokens=40)
    requests = [ask(name, [n] * 9, max_tokens=20, priority=p) for n, (name, p) in enumerate((("low", 5), ("high", 0)))]
    for request in requests:
        engine.scheduler.add(request)
    while not engine.scheduler.counts.num_preemptions:
        engine.step()
    assert [sequence.request_id for sequence in engine.scheduler._turns.running] == ["high"]
    engine.scheduler.add(ask("highest", [3] * 3, max_tokens=4, priority=-1))
    engine.run()
    assert list(engine.answers.ends)[-1] == "low"
    for request in requests:
        assert engine.answers.of(request.request_id) == engine.expected(request)


@given(
    st.lists(st.tuples(st.integers(-2, 2), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=20),
    st.integers(1, 3),
)
def test_whoever_gets_a_place_is_the_first_of_those_who_wait(arrivals, places):
    """Arrivals of (priority, tokens, steps until the next), against a queue that is sorted anew each time."""
    engine = EngineInMemory(max_num_sequences=places)
    waiting: list[tuple[int, int]] = []
    for number, (priority, max_tokens, steps) in enumerate(arrivals):
        engine.scheduler.add(ask(f"r{number}", [number + 1], max_tokens=max_tokens, priority=priority))
        waiting.append((priority, number))
        for _ in range(steps):
            check_admissions(engine, waiting)
    while engine.scheduler.has_work:
        check_admissions(engine, waiting)
    assert waiting == []


def check_admissions(engine: EngineInMemory, waiting: list[tuple[int, int]]) -> None:
    """Step, and compare who was let in."""
    running = {sequence.sequence_id for sequence in engine.scheduler._turns.running}
    scheduled = {entry.sequence_id for entry in engine.step().sequences}
    free = engine.config.max_num_sequences - len(running)
    expected = sorted(waiting)[:free]
    assert scheduled - running == {number for _, number in expected}
    assert running <= scheduled
    waiting[:] = sorted(waiting)[free:]


def test_cancel_is_prompt():
    engine = EngineInMemory(max_num_sequences=1)
    for name in ("runs", "waits"):
        engine.scheduler.add(ask(name, [1, 2, 3], max_tokens=1000))
    engine.step()
    for name in ("runs", "waits", "never was"):
        engine.scheduler.abort(name)
    assert engine.pool.num_in_use == 0
    assert engine.step().sequences == []
    assert {name: end.finish_reason for name, end in engine.answers.ends.items()} == dict.fromkeys(
        ("runs", "waits"), FinishReason.ABORT
    )
    assert not engine.scheduler.has_work


def test_a_prompt_that_can_never_fit_is_refused_with_both_lengths():
    engine = EngineInMemory(block_size=4, kv_cache_tokens=32)
    engine.run(ask("too long", [1] * 32), ask("just fits", [1] * 31))
    assert engine.answers.ends["too long"].error == "The prompt has 32 tokens, but a sequence may have 32 here."
    assert engine.answers.of("just fits").finish_reason is FinishReason.LENGTH
    assert len(engine.answers.token_ids["just fits"]) == 1


def test_a_row_that_fails_fails_alone():
    engine = EngineInMemory(fail_on=200)
    good, bad = ask("good", [1, 2, 3]), ask("bad", [1, 200, 3])
    answers = engine.run(good, bad)
    assert answers.of("bad") == Answer([], FinishReason.ERROR)
    assert answers.ends["bad"].error
    assert answers.of("good") == engine.expected(good)


def test_nothing_is_published_of_a_step_that_failed():
    engine = EngineInMemory(block_size=4, fail_on=200)
    engine.run(ask("bad", [1, 2, 3, 200] * 5))
    assert engine.pool.num_cached == 0


def test_nobody_starves_in_a_batch_that_is_too_small_for_all():
    engine = EngineInMemory(max_batch_tokens=2)
    for n in range(5):
        engine.scheduler.add(ask(f"r{n}", [n], max_tokens=4))
    for _ in range(4):
        assert [entry.sequence_id for entry in engine.step().sequences] == [0, 1]
    assert [entry.sequence_id for entry in engine.step().sequences] == [2, 3]


def test_end_of_sequence_stop_tokens_and_min_tokens():
    engine = EngineInMemory(script=(65, 66, EOS, 67), eos_token_id=EOS)
    answers = engine.run(
        ask("eos", [1]),
        ask("ignored", [1], ignore_eos=True),
        ask("stop token", [1], stop_token_ids=(66,)),
        ask("length", [1], max_tokens=2),
    )
    assert answers.of("eos") == Answer([65, 66, EOS], FinishReason.STOP)
    assert answers.of("ignored") == Answer([65, 66, EOS, 67] * 2, FinishReason.LENGTH)
    assert answers.of("stop token") == Answer([65, 66], FinishReason.STOP)
    assert answers.of("length") == Answer([65, 66], FinishReason.LENGTH)


def test_min_tokens_masks_what_would_end():
    engine = EngineInMemory(eos_token_id=EOS, eos_odds=2)
    for n in range(20):
        engine.run(ask(f"r{n}", [n], min_tokens=10, max_tokens=100, stop_token_ids=(32,)))
        *before, last = engine.answers.token_ids[f"r{n}"]
        assert len(before) >= 10
        assert not {EOS, 32} & set(before)
        assert last in (EOS, 32)


def next_spec(request: GenerateRequest, *eos_token_ids: int) -> SampleSpec:
    sequence = Sequence(0, request)
    return sequence.sample_specs(sequence.num_tokens, eos_token_ids)[-1]


def test_the_mask_ends_after_min_tokens():
    for num_output, masked in ((0, (7, EOS)), (1, (7, EOS)), (2, ()), (3, ())):
        request = ask("a", [1], sent=[5] * num_output, min_tokens=2, stop_token_ids=(7,))
        assert next_spec(request, EOS).masked_token_ids == masked
    ignoring = ask("a", [1], min_tokens=2, stop_token_ids=(7,), ignore_eos=True)
    assert next_spec(ignoring, EOS).masked_token_ids == (7,)


def test_history_is_sent_only_to_those_who_need_it():
    engine = EngineInMemory()
    engine.run(ask("plain", [1, 2], max_tokens=2), ask("penalized", [3, 4], presence_penalty=1.0, max_tokens=2))
    histories = [[entry.samples[0].history for entry in plan.sequences if entry.samples] for plan in engine.plans]
    assert [bool(history) for history in histories[1]] == [False, True]


def test_a_sequence_hands_over_the_same_objects_in_every_step():
    """So that a runner can keep what it makes of them."""
    engine = EngineInMemory()
    engine.run(ask("a", [3, 4], presence_penalty=1.0, max_tokens=5))
    specs = [spec for plan in engine.plans for entry in plan.sequences for spec in entry.samples]
    assert len(specs) == 5
    assert all(spec.sampling is specs[0].sampling and spec.history is specs[0].history for spec in specs)


def test_the_runner_is_told_once_of_each_sequence_that_finished():
    """However it ended; with the next plan that is executed, since an empty one is not."""
    engine = EngineInMemory()
    engine.run(ask("stops", [1], max_tokens=1), ask("goes on", [2], max_tokens=3))
    engine.scheduler.add(ask("aborted", [3], max_tokens=9))
    engine.step()
    engine.scheduler.abort("aborted")
    assert not engine.step().sequences
    assert engine.finished == {0, 1}
    engine.run(ask("last", [4], max_tokens=2))
    assert engine.finished == {0, 1, 2}


def test_resumed_it_goes_on_where_it_was():
    whole, alone = ask("a", [1, 2, 3], temperature=0.6, max_tokens=20, min_tokens=5), EngineInMemory()
    token_ids = alone.run(whole).token_ids["a"]
    for sent in range(20):
        engine = EngineInMemory(prefill_chunk=2)
        rest = ask("a", [1, 2, 3], sent=token_ids[:sent], temperature=0.6, max_tokens=20, min_tokens=5)
        assert engine.run(rest).token_ids["a"] == token_ids[sent:]


def test_resumed_it_does_not_boast_of_its_own_cache():
    engine = EngineInMemory(block_size=4)
    engine.run(ask("a", [*range(20)]), ask("b", [*range(20)], sent=[65], max_tokens=2))
    assert {event.num_cached_tokens for event in engine.answers.events} == {0}


def test_resumed_after_its_last_token_it_just_ends():
    engine = EngineInMemory()
    answers = engine.run(ask("a", [1], sent=[2, 3], max_tokens=2))
    assert answers.of("a") == Answer([], FinishReason.LENGTH)


def test_requests_of_different_salts_share_nothing():
    """Neither afterwards, from the cache, nor at the same time, when one could wait for the other's blocks."""
    prompt = [*range(1, 41)]
    engine = EngineInMemory(block_size=4)
    names = {"plain": "", "a": "a", "b": "b"}
    engine.run(*(ask(name, prompt, cache_salt=salt) for name, salt in names.items()))
    engine.run(ask("late a", prompt, cache_salt="a"), ask("late c", prompt, cache_salt="c"))
    cached = {event.request_id: event.num_cached_tokens for event in reversed(engine.answers.events)}
    assert cached == {"plain": 0, "a": 0, "b": 0, "late a": 36, "late c": 0}
    assert len(set(map(tuple, engine.answers.token_ids.values()))) == 1


class LoadMachine(RuleBasedStateMachine):
    """Requests with shared prefixes come and go over a pool that is too small for them."""

    @initialize(
        blocks=st.integers(3, 12),
        block_size=st.integers(1, 4),
        batch=st.integers(1, 20),
        chunk=st.integers(0, 5),
        sequences=st.integers(1, 5),
        caching=st.booleans(),
        flex_steps=st.integers(1, 20),
        drafts=st.none() | st.integers(0, 99),
        looks_ahead=st.booleans(),
    )
    def start(self, blocks, block_size, batch, chunk, sequences, caching, flex_steps, drafts, looks_ahead):
        self.engine = EngineInMemory(
            flex_steps=flex_steps,
            speculation=None if drafts is None else oracle_drafts(drafts),
            kv_cache_tokens=blocks * block_size,
            block_size=block_size,
            max_batch_tokens=batch,
            prefill_chunk=chunk,
            max_num_sequences=sequences,
            prefix_caching=caching,
            eos_token_id=EOS,
            eos_odds=9,
            fail_on=3,
            looks_ahead=looks_ahead,
        )
        self.requests: dict[str, GenerateRequest] = {}
        self.aborted: set[str] = set()

    @rule(
        prompt=st.lists(st.sampled_from([1, 1, 1, 2, 2, 3]), min_size=1, max_size=25),
        sent=st.integers(0, 3),
        max_tokens=st.integers(1, 12),
        min_tokens=st.integers(0, 4),
        temperature=st.sampled_from([0.0, 0.6]),
        penalty=st.sampled_from([0.0, 0.5]),
        logprobs=st.sampled_from([None, None, 1]),
        budget=st.sampled_from([None, 0, 2, 5]),
        priority=st.sampled_from([0, 0, 0, -1, 4]),
        salt=st.sampled_from(["", "", "a"]),
        client=st.sampled_from(["", "", "ann", "bob"]),
        weight=st.sampled_from([1, 1, 5]),
        tier=st.sampled_from([ServiceTier.DEFAULT, ServiceTier.DEFAULT, ServiceTier.FLEX]),
    )
    def add(
        self,
        prompt,
        sent,
        max_tokens,
        min_tokens,
        temperature,
        penalty,
        logprobs,
        budget,
        priority,
        salt,
        client,
        weight,
        tier,
    ):
        sampling = {
            "max_tokens": max_tokens,
            "min_tokens": min_tokens,
            "temperature": temperature,
            "presence_penalty": penalty,
            "num_logprobs": logprobs,
            "thinking": None if budget is None else ThinkingLimit(budget, (32, 46), ((46,),)),
        }
        request = ask(f"r{len(self.requests)}", prompt, **sampling)
        first = self.engine.expected(request).token_ids[:-1][:sent]  # an earlier engine sent these
        place = {"priority": priority, "client": client, "weight": weight, "tier": tier}
        request = ask(request.request_id, prompt, sent=first, cache_salt=salt, **place, **sampling)
        self.requests[request.request_id] = request
        self.engine.scheduler.add(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.requests)))
        if request_id not in self.engine.answers.ends:
            self.aborted.add(request_id)
        self.engine.scheduler.abort(request_id)

    @rule(steps=st.integers(1, 6))
    def step(self, steps):
        for _ in range(steps):
            self.engine.step()

    @invariant()
    def accounts_close(self):
        if hasattr(self, "engine"):
            self.engine.scheduler.check()

    def teardown(self):
        """Nothing vanishes: all end, once, with the answer that no load may change."""
        if not hasattr(self, "engine"):
            return
        self.engine.run()
        assert self.engine.answers.ends.keys() == self.requests.keys()
        for request_id, request in self.requests.items():
            answer, expected = self.engine.answers.of(request_id), self.engine.expected(request)
            if answer.finish_reason is FinishReason.ABORT:
                assert request_id in self.aborted
                assert answer.token_ids == expected.token_ids[: len(answer.token_ids)]
            elif len(request.prompt_token_ids) >= self.engine.context_length:
                assert answer == Answer([], FinishReason.ERROR)
            else:
                assert answer == expected


TestAnyLoad = LoadMachine.TestCase
TestAnyLoad.settings = hypothesis_settings(max_examples=examples(200), stateful_step_count=30)

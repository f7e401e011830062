"""Answers that keep to a grammar: valid whatever is drawn, the same under any load and after any death."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from grammars import json_grammar, lark, matcher_of, spelled, tiny_vocabulary
from loads import EngineInMemory, ask
from schemas import problem, random_schema

from antiphon.engine.worker.accuracy import Draft
from antiphon.engine.worker.drafting import Drafting
from antiphon.engine.worker.speculation import Speculation
from antiphon.grammar.matcher import Matcher
from antiphon.request import FinishReason, GenerateRequest, Grammar, GrammarKind, ThinkingLimit

VOCABULARY = tiny_vocabulary()
EOS = VOCABULARY.eos_token_ids[0]
CHOICE = lark(GrammarKind.CHOICE, '["yes", "no", "perhaps not"]')
THINK, CLOSE = VOCABULARY.tokens.index(b"<think>"), VOCABULARY.tokens.index(b"</think>")
LINE, PAUSE = VOCABULARY.tokens.index(b"\n"), (VOCABULARY.tokens.index(b"\n"),) * 2


def engine(**settings: object) -> EngineInMemory:
    return EngineInMemory(vocab_size=len(VOCABULARY.tokens), eos_token_id=EOS, **settings)


def structured(name: str, grammar: Grammar, **fields: object) -> GenerateRequest:
    return ask(name, [7, 8, 9], grammar=grammar, **{"temperature": 1.0, "max_tokens": 3000, **fields})


def schema_requests(count: int) -> list[GenerateRequest]:
    return [structured(str(seed), json_grammar(random_schema(seed)), seed=seed) for seed in range(count)]


def test_whatever_is_drawn_fits_the_schema():
    """Two hundred schemas, each token drawn at random from those that the grammar leaves."""
    alone = engine()
    for seed, request in enumerate(schema_requests(200)):
        answer = alone.expected(request)
        assert answer.finish_reason is FinishReason.STOP, random_schema(seed)
        assert problem(random_schema(seed), spelled(answer.token_ids)) is None


def test_the_same_alone_and_among_others():
    """Preempted, cut into chunks, beside others with and without a grammar: what each would get alone."""
    among = engine(kv_cache_tokens=1024, max_num_sequences=16, prefill_chunk=2)
    requests = [
        *schema_requests(16),
        *(ask(f"free {n}", [n + 1] * 40, temperature=1.0, seed=n, max_tokens=200) for n in range(16)),
    ]
    answers = among.run(*requests)
    assert among.scheduler.counts.num_preemptions > 0
    assert [answers.of(request.request_id) for request in requests] == [among.expected(each) for each in requests]


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_that_another_engine_began_goes_on_as_it_would_have(seed):
    request = structured("a", json_grammar(random_schema(seed)), seed=seed)
    whole = engine().run(request).of("a")
    for cut in {1, len(whole.token_ids) // 2, len(whole.token_ids) - 1}:
        resumed = engine().run(replace(request, output_token_ids=whole.token_ids[:cut])).of("a")
        assert resumed.token_ids == whole.token_ids[cut:]


def test_choices():
    requests = [structured(str(seed), CHOICE, seed=seed) for seed in range(40)]
    answers = engine().run(*requests)
    assert {spelled(answers.token_ids[request.request_id]) for request in requests} == {"yes", "no", "perhaps not"}


@pytest.mark.parametrize(
    ("kind", "text", "shape"),
    [
        (GrammarKind.REGEX, r"[a-f]{2,4}/\d\n\"?", r"[a-f]{2,4}/[0-9]\n\"?"),
        (GrammarKind.REGEX, "(grün|日本)+!", "(grün|日本)+!"),
        (GrammarKind.LARK, 'start: "(" item{1,3} ")"\nitem: /[xy]/ | start', r"\([xy(].*\)"),
        (GrammarKind.LARK, 'root ::= "a" root "b" | "-"', "a*-b*"),
    ],
)
def test_grammars_of_every_kind(kind, text, shape):
    answers = engine().run(*(structured(str(seed), lark(kind, text), seed=seed) for seed in range(20)))
    for seed in range(20):
        assert re.fullmatch(shape, spelled(answers.token_ids[str(seed)]), re.DOTALL)


def test_an_answer_may_be_cut():
    answers = engine().run(structured("a", json_grammar({"type": "string", "minLength": 50}), max_tokens=4))
    assert answers.of("a").finish_reason is FinishReason.LENGTH
    assert len(answers.token_ids["a"]) == 4


def test_log_probabilities_and_penalties_go_along():
    request = structured("a", CHOICE, num_logprobs=2, repetition_penalty=1.5, logit_bias={5: 9.0}, top_p=0.5)
    answers = engine().run(request)
    assert spelled(answers.token_ids["a"]) in ("yes", "no", "perhaps not")
    assert all(event.logprobs for event in answers.events)


class FourTokens(Drafting):
    """Verifies up to four tokens of each guess."""

    def may_pay(self, num_sequences: int) -> bool:
        return True

    def lengths(self, drafts: Sequence[Draft], num_sequences: int, max_rows: int) -> list[int]:
        return [min(4, len(draft.is_decided)) for draft in drafts]


def test_the_mask_after_a_drafted_token_that_was_right_is_not_computed_again(monkeypatch):
    """The second of two equal requests is drafted from the first."""
    speculation = Speculation(512, drafting=FourTokens())
    drafting = EngineInMemory(
        speculation=lambda engine: speculation, vocab_size=len(VOCABULARY.tokens), eos_token_id=EOS
    )
    grammar = lark(GrammarKind.REGEX, "[a-z]{60}")
    drafting.run(structured("a", grammar, seed=1))
    num_masks, bitmask = 0, Matcher.bitmask

    def counted(matcher: Matcher) -> bytes:
        nonlocal num_masks
        num_masks += 1
        return bitmask(matcher)

    monkeypatch.setattr(Matcher, "bitmask", counted)
    num_drafted, num_accepted = speculation.counts.num_drafted_tokens, speculation.counts.num_accepted_tokens
    answer = drafting.run(structured("b", grammar, seed=1)).of("b")
    num_drafted = speculation.counts.num_drafted_tokens - num_drafted
    num_accepted = speculation.counts.num_accepted_tokens - num_accepted
    assert num_accepted > 10
    assert num_masks == len(answer.token_ids) + num_drafted - num_accepted  # none for the end, one at the beginning
    assert answer == drafting.expected(structured("b", grammar, seed=1))


# --- beside a thought

LIMIT = ThinkingLimit(20, (LINE, CLOSE, *PAUSE), ((CLOSE,),), ((THINK,),), loop_guard=False)


def thinking(name: str, limit: ThinkingLimit, **fields: object) -> GenerateRequest:
    return structured(name, CHOICE, thinking=limit, **fields)


def said(script: list[int], limit: ThinkingLimit) -> list[int]:
    return engine(script=tuple(script)).run(thinking("a", limit)).token_ids["a"]


def test_a_thought_is_free_and_the_answer_is_not():
    word = VOCABULARY.tokens.index(b"x")
    token_ids = said([word, EOS, word, CLOSE], replace(LIMIT, begin_token_ids=()))
    assert EOS not in token_ids[: token_ids.index(CLOSE)]  # the end may not come before the answer
    assert word in token_ids[: token_ids.index(CLOSE)]
    after = token_ids[token_ids.index(CLOSE) + 1 :]
    assert tuple(after[: len(PAUSE)]) == PAUSE  # what stands there also where the engine closes the thought
    assert spelled(after[len(PAUSE) :]) in ("yes", "no", "perhaps not")


def test_a_thought_that_the_engine_closes():
    token_ids = said([VOCABULARY.tokens.index(b"x")], replace(LIMIT, begin_token_ids=()))
    assert token_ids[20 : 20 + 2 + len(PAUSE)] == [LINE, CLOSE, *PAUSE]
    assert spelled(token_ids[22 + len(PAUSE) :]) in ("yes", "no", "perhaps not")


def test_a_thought_may_be_opened_or_left_out():
    answers = engine().run(*(thinking(str(seed), LIMIT, seed=seed) for seed in range(40)))
    opened = [token_ids for token_ids in answers.token_ids.values() if token_ids[0] == THINK]
    assert 0 < len(opened) < 40
    for token_ids in answers.token_ids.values():
        rest = token_ids[token_ids.index(CLOSE) + 1 + len(PAUSE) :] if token_ids[0] == THINK else token_ids
        assert spelled(rest) in ("yes", "no", "perhaps not")


def test_an_opening_tag_of_several_tokens_may_share_its_beginning_with_the_answer():
    less, word, more = (VOCABULARY.tokens.index(text) for text in (b"<", b"t", b">"))
    limit = replace(LIMIT, begin_token_ids=((less, word, more),))
    grammar = lark(GrammarKind.CHOICE, '["<tx", "no"]')
    answers = engine().run(*(structured(str(seed), grammar, thinking=limit, seed=seed) for seed in range(60)))
    texts = [spelled(token_ids, errors="replace") for token_ids in answers.token_ids.values()]
    assert {text.partition("</think>")[2].lstrip("\n") or text for text in texts} == {"<tx", "no"}
    assert any(text.startswith("<t>") for text in texts)
    assert any(text.startswith("<tx") for text in texts)


@pytest.mark.parametrize("seed", range(6))
def test_a_thought_and_its_answer_resumed_anywhere(seed):
    request = thinking("a", LIMIT, seed=seed)
    whole = engine().run(request).token_ids["a"]
    for cut in range(1, len(whole)):
        resumed = engine().run(replace(request, output_token_ids=whole[:cut]))
        assert resumed.token_ids["a"] == whole[cut:]


# --- what goes wrong

STEEP = lark(GrammarKind.LARK, "start: A\nA: /.*a.{10}.*/ & /(.*b.{12}c)*/ & ~/(.*c.{9}a)*/")


def test_a_grammar_that_cannot_be_followed_any_further_fails_alone():
    failing, well = structured("failing", STEEP), structured("well", json_grammar(random_schema(1)))
    together = engine()
    answers = together.run(failing, well)
    end = answers.ends["failing"]
    assert end.finish_reason is FinishReason.ERROR
    assert (end.error or "").startswith("The grammar of this request could not be followed: ")
    assert answers.token_ids["failing"]
    assert answers.of("well") == together.expected(well)


def test_resuming_a_long_answer_shows_progress_on_the_way():
    """A grammar has to see every token again, which may take longer than an engine may stand still."""
    grammar = lark(GrammarKind.REGEX, "[a-z ]{2000}")
    whole = engine(kv_cache_tokens=4096).run(structured("a", grammar)).of("a")
    assert len(whole.token_ids) > 512
    noted = []
    resumed = engine(kv_cache_tokens=4096)
    request = structured("a", grammar, sent=whole.token_ids[:-5])
    resumed.scheduler.add(request, matcher_of(grammar), lambda: noted.append(1))
    assert len(noted) >= len(whole.token_ids) // 256
    assert resumed.run().of("a").token_ids == whole.token_ids[-5:]

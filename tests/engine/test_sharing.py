"""Which requests are equal: those whose answers are the same bits for whoever may know of each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from loads import ask

from antiphon.engine.requests.sharing import signature
from antiphon.request import GenerateRequest, Terms

SHARED = Terms(shares_with="ann")


def request(**sampling: Any) -> GenerateRequest:
    return ask("a", [1, 2, 3], **{"temperature": 0.7, "seed": 5, "max_tokens": 9, **sampling})


def same(one: GenerateRequest, other: GenerateRequest) -> bool:
    return signature(one, SHARED, 1) == signature(other, SHARED, 1)


def test_an_equal_request_of_another_id_and_with_other_terms_is_equal():
    other = replace(request(), request_id="b", fairness_id="bob")
    assert signature(request(), SHARED, 1) == signature(other, Terms(2.0, 9.0, "bob", shares_with="ann"), 1) != b""


def test_the_order_of_biases_is_no_difference_and_at_temperature_0_the_seed_is_none():
    assert same(request(logit_bias={1: 2.0, 7: 3.0}), request(logit_bias={7: 3.0, 1: 2.0}))
    assert same(request(temperature=0.0, seed=1), request(temperature=0.0, seed=2))


@pytest.mark.parametrize(
    "other",
    [
        request(seed=6),
        request(max_tokens=10),
        request(temperature=0.8),
        request(logit_bias={1: 1.0}),
        request(stop_token_ids=(4,)),
        request(num_logprobs=0),
        ask("a", [1, 2, 4], temperature=0.7, seed=5, max_tokens=9),
        replace(request(), choice_index=1),
        replace(request(), cache_salt="x"),
        replace(request(), priority=1),
        replace(request(), output_token_ids=[4]),
        replace(request(), num_scored_tokens=1),
        replace(request(), reports_progress=True),
    ],
    ids=range(13),
)
def test_whatever_changes_an_answer_or_when_it_is_computed_is_a_difference(other: GenerateRequest):
    assert not same(request(), other)


def test_another_model_and_another_name_to_share_with_are_differences_and_without_one_nothing_is_equal():
    assert signature(request(), SHARED, 1) != signature(request(), SHARED, 2)
    assert signature(request(), SHARED, 1) != signature(request(), Terms(shares_with="bob"), 1)
    assert signature(request(), Terms(), 1) == b""

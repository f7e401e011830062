"""The largest and smallest number that each request field takes fits what the engine keeps it in."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from annotated_types import Ge, Gt, Le

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.completions.request import CompletionRequest
from antiphon.api.sampling import sampling_params
from antiphon.api.served_model import ModelFacts
from antiphon.ops.native_sampling import Samplings, _native_sampling
from antiphon.step import SampleSpec

FACTS = ModelFacts(context_length=4096, vocab_size=1000)
REQUESTS: dict[type[ChatCompletionRequest] | type[CompletionRequest], dict[str, Any]] = {
    ChatCompletionRequest: {"messages": [{"role": "user", "content": "Hello"}]},
    CompletionRequest: {"prompt": "Hello", "echo": True},  # without an echo there must be something to generate
}
# What a field needs beside it.
COMPANIONS: dict[str, dict[str, Any]] = {"top_logprobs": {"logprobs": True}}
# These are bounded by the model, not by a number in the schema.
BOUNDED_LATER = {"max_tokens": 4096, "max_completion_tokens": 4096, "min_tokens": 4095}
THINKING = {
    "thinking_token_budget",
    "max_thinking_tokens",
    "thinking_budget",
}  # cut to max_tokens before the engine hears of them


def extremes(annotation: Any, name: str) -> list[float]:
    """The ends of a numeric field's range; none for other fields."""
    for branch in (annotation, *get_args(annotation)):
        bounds = getattr(branch, "__metadata__", ())
        if bounds and get_args(branch)[0] in (int, float):
            least = [bound.ge for bound in bounds if isinstance(bound, Ge)]
            above = [math.nextafter(bound.gt, math.inf) for bound in bounds if isinstance(bound, Gt)]
            most = [bound.le for bound in bounds if isinstance(bound, Le)] or [BOUNDED_LATER[name]]
            return [*least, *above, *most]
    return []


CASES = [
    (model, {name: value} | COMPANIONS.get(name, {}))
    for model in REQUESTS
    for name, field in model.model_fields.items()
    if name not in THINKING
    for value in extremes(field.annotation, name)
] + [(model, {"logit_bias": {"0": -100, "999": 100}, "stop_token_ids": [0, 999]}) for model in REQUESTS]


def test_the_cases_cover_the_numeric_fields():
    assert {"top_k", "seed", "n", "repetition_penalty", "top_logprobs", "logprobs"} <= {
        name for _, fields in CASES for name in fields
    }


@pytest.mark.parametrize(("model", "fields"), CASES, ids=lambda value: str(value)[:60])
def test_the_engine_holds_every_number_that_is_let_in(model, fields):
    request = model.model_validate(REQUESTS[model] | fields)
    sampling = sampling_params(request, FACTS, {}, num_prompt_tokens=1)
    converted = _native_sampling(sampling, choice_index=15)
    Samplings().request(0, SampleSpec(sampling, choice_index=15, position=4095))
    assert converted.top_k == sampling.top_k
    assert converted.seed == sampling.seed
    assert converted.repetition_penalty == pytest.approx(sampling.repetition_penalty)

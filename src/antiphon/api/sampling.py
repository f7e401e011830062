"""Turns a request's fields into SamplingParams: the checks that need the model, and all defaults.

A field that was left out gets the publisher's recommended value if the checkpoint contains one, else OpenAI's default.
The result is valid for the engine, which does not check it again. This module does not know which API a request uses.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from antiphon.api.generation_request import GenerationRequest
from antiphon.api.served_model import ModelFacts
from antiphon.errors import ContextLengthExceeded, InvalidRequest
from antiphon.request import Grammar, SamplingParams

_SEED_MASK = (1 << 64) - 1


def sampling_params(
    request: GenerationRequest,
    facts: ModelFacts,
    defaults: Mapping[str, float | int],
    *,
    num_prompt_tokens: int,
    default_max_tokens: int | None = None,
    grammar: Grammar | None = None,
) -> SamplingParams:
    """The request's sampling parameters, complete and within the model's limits.

    `default_max_tokens` of None means as many as fit in the context; `grammar` has already been checked.

    Raises:
        InvalidRequest: an id is not in the vocabulary, or the token limits cannot be met.
    """
    max_tokens = _max_tokens(request, default_max_tokens, facts.context_length, num_prompt_tokens)
    min_tokens = request.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidRequest(
            f"'min_tokens' is {min_tokens}, but this request can generate at most {max_tokens} tokens.",
            param="min_tokens",
        )
    stop_token_ids = tuple(dict.fromkeys(request.stop_token_ids or ()))
    check_token_ids(stop_token_ids, facts.vocab_size, "stop_token_ids")
    return SamplingParams(
        temperature=_first(request.temperature, defaults.get("temperature"), 1.0),
        top_k=max(0, int(_first(request.top_k, defaults.get("top_k"), 0))),
        top_p=_first(request.top_p, defaults.get("top_p"), 1.0),
        min_p=_first(request.min_p, defaults.get("min_p"), 0.0),
        seed=secrets.randbits(64) if request.seed is None else request.seed & _SEED_MASK,
        repetition_penalty=_first(request.repetition_penalty, defaults.get("repetition_penalty"), 1.0),
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=_logit_bias(request.logit_bias or {}, facts.vocab_size),
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=bool(request.ignore_eos),
        stop_token_ids=stop_token_ids,
        grammar=grammar,
        num_logprobs=request.num_logprobs,
    )


def check_prompt_length(num_prompt_tokens: int, context_length: int, param: str) -> None:
    """Raise ContextLengthExceeded if the prompt leaves no room for an answer."""
    if num_prompt_tokens >= context_length:
        raise ContextLengthExceeded(num_prompt_tokens, context_length, param=param)


def check_token_ids(token_ids: Iterable[int], vocab_size: int, param: str) -> None:
    """Raise InvalidRequest if an id is not in the vocabulary."""
    largest = max(token_ids, default=0)
    if largest >= vocab_size:
        raise InvalidRequest(
            f"Invalid value for '{param}': token id {_shown(largest)} is not in the vocabulary; ids are 0 to "
            f"{vocab_size - 1}.",
            param=param,
        )


def _max_tokens(request: GenerationRequest, default: int | None, context_length: int, num_prompt_tokens: int) -> int:
    """The requested limit, reduced to what fits in the context: many clients always ask for 32,000."""
    wanted, room = request.token_limit, context_length - num_prompt_tokens
    if wanted is None:
        return room if default is None else min(default, room)
    return min(wanted, room)


def _logit_bias(biases: Mapping[str, float], vocab_size: int) -> dict[int, float]:
    converted: dict[int, float] = {}
    for text, bias in biases.items():
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            raise InvalidRequest(
                f"Invalid key in 'logit_bias': {text[:40]!r} is not a token id; ids are whole numbers.",
                param="logit_bias",
            )
        if int(text) in converted:
            raise InvalidRequest(f"Token id {int(text)} appears in 'logit_bias' more than once.", param="logit_bias")
        converted[int(text)] = float(bias)
    check_token_ids(converted, vocab_size, "logit_bias")
    return converted


def _first(requested: float | None, advice: float | int | None, otherwise: float) -> float:
    if requested is not None:
        return float(requested)
    return float(otherwise if advice is None else advice)


def _shown(number: int) -> str:
    """A number for a message, shortened if it is very long."""
    text = str(number)
    return text if len(text) <= 24 else f"{text[:8]}… ({len(text)} digits)"

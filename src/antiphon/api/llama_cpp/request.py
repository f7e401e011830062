"""The body of llama-server's `POST /completion`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import Field

from antiphon.api.fields import (
    Accepted,
    DegradeWish,
    Integer,
    MaxWait,
    MinusOneIsUnset,
    Seed,
    StopString,
    Timeout,
    TokenId,
    refused,
)
from antiphon.api.limits import MAX_LOGIT_BIASES, MAX_LOGPROBS, MAX_STOPS
from antiphon.api.schema import Schema
from antiphon.api.structured import AnySchema, Pattern


class LlamaCompletionRequest(Schema):
    """Fields that affect the answer are used; fields that tune llama.cpp itself are accepted without effect."""

    prompt: str | list[TokenId]
    n_predict: Annotated[Annotated[Integer, Ge(0)] | None, MinusOneIsUnset] = Field(
        None, description="-1: as many as fit in the context."
    )
    stream: bool | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_k: Annotated[Integer, Ge(0), Le((1 << 31) - 1)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    seed: Seed = None
    stop: Annotated[list[StopString], MaxLen(MAX_STOPS)] | None = None
    repeat_penalty: Annotated[float, Ge(0.01), Le(10)] | None = None
    presence_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    frequency_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    ignore_eos: bool | None = None
    logit_bias: Annotated[list[Annotated[list[Any], MinLen(2), MaxLen(2)]], MaxLen(MAX_LOGIT_BIASES)] | None = Field(
        None, description="Pairs of a token id and a bias; false forbids the token."
    )
    n_probs: Annotated[Integer, Ge(0), Le(MAX_LOGPROBS)] | None = None
    grammar: Pattern | Literal[""] | None = None
    json_schema: AnySchema | None = None
    return_tokens: bool | None = None
    return_progress: bool | None = Field(None, description="In a stream: parts with how much of the prompt is read.")
    max_wait: MaxWait = None
    timeout: Timeout = None
    degrade: DegradeWish = None

    cache_prompt: Accepted = None
    id_slot: Accepted = None
    n_keep: Accepted = None
    n_discard: Accepted = None
    n_indent: Accepted = None
    t_max_predict_ms: Annotated[Any, refused(0), Field(description="Refused unless 0.")] = None
    min_keep: Accepted = None
    repeat_last_n: Accepted = None
    penalize_nl: Accepted = None
    samplers: Accepted = None
    timings_per_token: Accepted = None
    post_sampling_probs: Accepted = None
    typical_p: Annotated[Any, refused(1, 1.0), Field(description="Refused unless 1.")] = None
    mirostat: Annotated[Any, refused(0), Field(description="Refused unless 0.")] = None
    mirostat_tau: Accepted = None
    mirostat_eta: Accepted = None
    dynatemp_range: Annotated[Any, refused(0, 0.0), Field(description="Refused unless 0.")] = None
    dynatemp_exponent: Accepted = None
    xtc_probability: Annotated[Any, refused(0, 0.0), Field(description="Refused unless 0.")] = None
    xtc_threshold: Accepted = None
    dry_multiplier: Annotated[Any, refused(0, 0.0), Field(description="Refused unless 0.")] = None
    dry_base: Accepted = None
    dry_allowed_length: Accepted = None
    dry_penalty_last_n: Accepted = None
    dry_sequence_breakers: Accepted = None
    lora: Annotated[Any, refused([]), Field(description="Refused unless empty.")] = None

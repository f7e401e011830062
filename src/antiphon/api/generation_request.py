"""The fields that chat and plain completions share: sampling, limits, stops, streaming.

Owns names, types and ranges that can be checked without the model; `sampling` checks the rest. Every known field has an
effect, is listed as accepted without effect, or is refused by name.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import (
    AliasChoices,
    Field,
    model_validator,
)

from antiphon.api.fields import (
    AcceptedFlag,
    AcceptedText,
    DegradeWish,
    Integer,
    MaxWait,
    ModelName,
    Penalty,
    RepetitionPenalty,
    Seed,
    ServiceTierName,
    StopString,
    Timeout,
    TokenId,
    TokenLimit,
    TopK,
)
from antiphon.api.limits import MAX_CACHE_SALT, MAX_CHOICES, MAX_LOGIT_BIASES, MAX_STOP_TOKEN_IDS, MAX_STOPS
from antiphon.api.schema import Schema, conflict
from antiphon.api.structured import StructuredRequest, check_company

_MIN_PRIORITY, _MAX_PRIORITY = -(1 << 31), (1 << 31) - 1


class StreamOptions(Schema):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = Field(
        None, description="With include_usage: every chunk contains the usage so far."
    )
    include_obfuscation: AcceptedFlag = None

    @model_validator(mode="after")
    def _continuous_usage_is_usage(self) -> StreamOptions:
        if self.continuous_usage_stats and not self.include_usage:
            message = "'continuous_usage_stats' is only allowed when 'include_usage' is true."
            raise conflict("continuous_usage_stats", message)
        return self


class GenerationRequest(StructuredRequest):
    """The fields that chat and plain completions share."""

    model: ModelName = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Integer, Ge(1), Le(MAX_CHOICES)] | None = None

    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    top_k: TopK | None = Field(None, description="0 or -1 switches it off.")
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    seed: Seed = Field(None, description="-1 means not set.")
    repetition_penalty: RepetitionPenalty | None = Field(
        None,
        validation_alias=AliasChoices("repetition_penalty", "repeat_penalty"),
        description="repeat_penalty is accepted too.",
    )
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Ge(-100), Le(100)]], MaxLen(MAX_LOGIT_BIASES)] | None = None

    max_tokens: TokenLimit = Field(
        None, description="-1 means not set. Reduced to what fits in the context after the prompt."
    )
    min_tokens: Annotated[Integer, Ge(0)] | None = None
    ignore_eos: bool | None = None
    stop: StopString | Annotated[list[StopString], MaxLen(MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], MaxLen(MAX_STOP_TOKEN_IDS)] | None = None

    return_token_ids: bool | None = Field(None, description="Also return the token ids of the prompt and the answer.")
    return_progress: bool | None = Field(
        None, description="In a stream: chunks with the place in the queue, and how much of the prompt has been read."
    )
    max_wait: MaxWait = None
    timeout: Timeout = None
    degrade: DegradeWish = None
    priority: Annotated[Integer, Ge(_MIN_PRIORITY), Le(_MAX_PRIORITY)] | None = Field(
        None, description="Lower numbers go first."
    )
    service_tier: ServiceTierName = None
    cache_salt: Annotated[str, MinLen(1), MaxLen(MAX_CACHE_SALT)] | None = Field(
        None, description="The prefix cache is only shared with requests that have the same salt."
    )
    user: AcceptedText = None

    @model_validator(mode="after")
    def _a_grammar_ends_the_answer(self) -> GenerationRequest:
        check_company(self.grammar_fields, {"min_tokens": bool(self.min_tokens), "ignore_eos": bool(self.ignore_eos)})
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that contains the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of a stream contains the usage so far."""
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)

    @property
    def token_limit(self) -> int | None:
        """The requested maximum number of tokens; None if it is not set."""
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """`SamplingParams.num_logprobs`."""
        return None

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list, without empty ones."""
        sent = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in sent if stop]

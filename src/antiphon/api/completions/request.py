"""The body of `POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import (
    Field,
    model_validator,
)

from antiphon.api.fields import Integer, MinusOneIsUnset, RefusedBestOf, RefusedText, TokenId
from antiphon.api.generation_request import GenerationRequest
from antiphon.api.limits import MAX_LOGPROBS
from antiphon.api.schema import conflict


class CompletionRequest(GenerationRequest):
    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: Annotated[Integer, Ge(0), Le(MAX_LOGPROBS)] | None = None

    max_tokens: Annotated[Annotated[Integer, Ge(0)] | None, MinusOneIsUnset] = Field(
        None, description="0 is only allowed with echo. -1 means not set."
    )
    echo: bool | None = Field(None, description="Return the prompt before the text, and in the log-probabilities.")
    suffix: RefusedText = None
    best_of: RefusedBestOf = None

    @model_validator(mode="after")
    def _nothing_to_generate_is_an_echo(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise conflict("max_tokens", "'max_tokens' is 0, which is only allowed when 'echo' is true.")
        return self

    @property
    def num_logprobs(self) -> int | None:
        """`SamplingParams.num_logprobs`."""
        return self.logprobs

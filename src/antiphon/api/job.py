"""A request that was understood: what the engine is to generate, for which prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.request import (
    SamplingParams,
)
from antiphon.text import ToolReading


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as the model sees it."""

    token_ids: list[int]
    sampling: SamplingParams
    starts_in_thought: bool = False
    num_scored_tokens: int = 0  # at its end, whose log-probabilities are told


@dataclass(frozen=True, slots=True)
class Job:
    """A whole request in the engine's terms: `n` choices for each prompt."""

    request_id: str
    prompts: Sequence[Prompt]
    stops: Sequence[str] = ()
    n: int = 1
    splits_thought: bool = True  # whether a thought is told apart from the answer
    priority: int = 0  # lower goes first
    cache_salt: str = ""  # the prefix cache is shared by requests of the same salt alone
    tools: ToolReading | None = None  # how calls in the answers are read; None: they are text

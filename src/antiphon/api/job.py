"""A validated request: the prompts, and what the engine generates for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.api.degrading import NO_LOAD, Load
from antiphon.api.shapes import Degraded
from antiphon.request import SamplingParams, ServiceTier
from antiphon.text import PromptTimes, ToolReading


@dataclass(frozen=True, slots=True)
class Prompt:
    """One tokenized prompt with its sampling parameters."""

    token_ids: list[int]
    sampling: SamplingParams
    starts_in_thought: bool = False
    continues: bool = False  # it ends inside the answer, or the thought, that is to be continued
    num_scored_tokens: int = 0  # tokens at its end whose log-probabilities are returned
    times: PromptTimes | None = None  # when it was rendered and encoded; None for a raw prompt


@dataclass(frozen=True, slots=True)
class Job:
    """A whole request: `n` choices for each prompt."""

    request_id: str
    prompts: Sequence[Prompt]
    stops: Sequence[str] = ()
    n: int = 1
    splits_thought: bool = True  # whether the thought is separated from the answer
    priority: int = 0  # lower numbers go first
    service_tier: ServiceTier = ServiceTier.DEFAULT
    cache_salt: str = ""  # the prefix cache is only shared by requests with the same salt
    tools: ToolReading | None = None  # how to read calls in the answers; None: calls stay text
    is_streamed: bool = False
    is_detached: bool = False  # whether it continues without its client
    max_wait: float | None = None  # seconds until the first token
    timeout: float | None = None  # seconds until it ends with what it has
    load: Load = NO_LOAD  # what applied when it was made
    degraded: Degraded | None = None  # the limits that this has lowered
    reports_progress: bool = False  # whether Generation.with_progress yields Progress

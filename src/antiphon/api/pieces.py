"""What a generation hands over: pieces of text, and at its end the tokens and seconds it took."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.request import (
    TokenLogprobs,
)


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token that was drawn, with its log-probability and its rivals'."""

    token_id: int
    scores: TokenLogprobs


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What is new in one of a choice's tool calls; its first delta has `id` and `name`."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""  # of the JSON text that they are
    is_last: bool = False  # the call is complete


@dataclass(slots=True)
class Piece:
    """What is new in one choice since its last piece; the last one has the finish reason."""

    index: int
    content: str = ""
    reasoning: str = ""
    token_ids: list[int] = field(default_factory=list)  # drawn, but for the one that ended the choice
    prompt_scores: list[TokenLogprobs] = field(default_factory=list)  # of the prompt's scored tokens, in order
    scored: list[ScoredToken] = field(default_factory=list)
    finish_reason: str | None = None
    tool_calls: list[ToolCallDelta] = field(default_factory=list)
    stop_string: str | None = None  # where one ended the choice
    end_token_ids: list[int] = field(default_factory=list)  # the token that ended it, where one did
    end_scored: list[ScoredToken] = field(default_factory=list)  # the same with its log-probability
    thought_closed: str | None = None  # why the engine closed the thought; waits for something to go out with

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.scored or self.tool_calls or self.finish_reason)


@dataclass(slots=True)
class Tally:
    """The tokens of a request, for its usage."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Where a request's time went, in seconds; of several choices the first to begin and the last to end count."""

    queue: float  # until the engine began with it
    prefill: float  # from there to the first token
    decode: float  # from there to the last one
    num_decoded: int  # tokens that came in that time

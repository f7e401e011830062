"""The output of a generation: pieces of text and, at the end, token counts and times."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.request import (
    TokenLogprobs,
)


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A drawn token with its log-probability and those of its likeliest alternatives."""

    token_id: int
    scores: TokenLogprobs


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The new part of one of a choice's tool calls. A call's first delta has `id` and `name`."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""  # the new part of their JSON text
    is_last: bool = False  # the call is complete


@dataclass(slots=True)
class Piece:
    """The new part of one choice since its last piece. The last piece has the finish reason."""

    index: int
    content: str = ""
    reasoning: str = ""
    token_ids: list[int] = field(default_factory=list)  # drawn tokens, without the one that ended the choice
    prompt_scores: list[TokenLogprobs] = field(default_factory=list)  # of the prompt's scored tokens, in order
    scored: list[ScoredToken] = field(default_factory=list)
    num_scored_in_thought: int = 0  # of `scored`, how many at its beginning belong to the thought
    finish_reason: str | None = None
    tool_calls: list[ToolCallDelta] = field(default_factory=list)
    stop_string: str | None = None  # the one that ended the choice
    end_token_ids: list[int] = field(default_factory=list)  # the token that ended the choice, if one did
    end_scored: list[ScoredToken] = field(default_factory=list)  # the same token with its log-probability
    ended_by: str | None = None  # "timeout": why it was cut, if not by its limit of tokens
    thought_closed: str | None = None  # why the engine closed the thought; not sent as a piece of its own

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.scored or self.tool_calls or self.finish_reason)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request is with its prompts: its place in the queue, or how much of them has been read."""

    position: int | None  # in the queue; 1: the next to begin; None: it has begun
    total: int  # tokens of all prompts
    cached: int  # of those, found in the prefix cache
    processed: int  # of those, computed or found in the prefix cache
    seconds: float  # since the engine began


@dataclass(slots=True)
class Tally:
    """A request's token counts, for its usage."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    drafted: int = 0  # drafted tokens that were verified
    accepted: int = 0  # of those, the ones that were right


@dataclass(frozen=True, slots=True)
class Times:
    """How long the stages of a request took, in seconds, from the first choice to begin to the last one to end."""

    queue: float  # until the engine began to compute it
    prefill: float  # from then to the first token
    decode: float  # from then to the last token
    num_decoded: int  # tokens generated during `decode`

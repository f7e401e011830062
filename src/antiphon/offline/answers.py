"""What `antiphon.Engine` returns: small frozen objects, and how they are assembled from pieces.

Owns their names, which are OpenAI's where OpenAI has one. They hold plain values only and remain valid after their
engine is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from antiphon.api.pieces import Piece, ScoredToken, Tally
from antiphon.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request, all its choices together."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # of the prompt: found in the prefix cache
    reasoning_tokens: int  # of the completion, inside thoughts

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One sampled token and its log-probability, before temperature; `top` are the most likely ones, in order."""

    token_id: int
    token: str
    bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called; `arguments` is the JSON text that it wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One continuation of the prompt."""

    text: str  # without the thought
    reasoning: str  # the thought, where the model thinks
    token_ids: tuple[int, ...]  # all sampled tokens except the one that ended the text
    finish_reason: str  # "stop", "length" or "tool_calls"
    logprobs: tuple[TokenLogprob, ...] | None = None  # if requested
    tool_calls: tuple[ToolCall, ...] = ()
    thought_closed: str | None = None  # why the engine, and not the model, closed the thought: "budget" or "loop"


@dataclass(frozen=True, slots=True)
class Vote:
    """The boxed answer that most choices agree on."""

    answer: str | None
    count: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one prompt or conversation; the properties are those of its first choice."""

    choices: tuple[Choice, ...]
    usage: Usage
    prompt_token_ids: tuple[int, ...]
    # With `echo` and `logprobs`: of the prompt's tokens; None for the first one.
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    vote: Vote | None = None  # if requested

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        return self.choices[0].reasoning

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.choices[0].token_ids

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        return self.choices[0].logprobs

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return self.choices[0].tool_calls


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in one choice of a stream."""

    index: int  # of the choice
    text: str = ""
    reasoning: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: str | None = None  # on the last delta of the choice
    tool_calls: tuple[ToolCall, ...] = ()  # complete, on the last delta of the choice
    thought_closed: str | None = None
    usage: Usage | None = None  # on the last delta of the stream


@dataclass(slots=True)
class GrowingToolCalls:
    """The tool calls of one choice, assembled from their deltas."""

    _parts: dict[int, list[str]] = field(default_factory=dict)  # by place: id, name, arguments

    def push(self, piece: Piece) -> None:
        """Add what a piece contains of them."""
        for delta in piece.tool_calls:
            part = self._parts.setdefault(delta.index, ["", "", ""])
            for place, new in enumerate((delta.id, delta.name, delta.arguments)):
                part[place] += new or ""

    def whole(self) -> tuple[ToolCall, ...]:
        """All of them, in order."""
        return tuple(ToolCall(*self._parts[index]) for index in sorted(self._parts))


@dataclass(slots=True)
class GrowingChoice:
    """One choice, piece by piece."""

    pieces: list[Piece] = field(default_factory=list)
    tool_calls: GrowingToolCalls = field(default_factory=GrowingToolCalls)

    def push(self, piece: Piece) -> None:
        """Add a piece."""
        self.pieces.append(piece)
        self.tool_calls.push(piece)

    def whole(self, tokenizer: Tokenizer, *, echo: str, with_logprobs: bool) -> Choice:
        """The complete choice; its text begins with `echo`."""
        scored = [each for piece in self.pieces for each in piece.scored]
        return Choice(
            text=echo + "".join(piece.content for piece in self.pieces),
            reasoning="".join(piece.reasoning for piece in self.pieces),
            token_ids=tuple(token_id for piece in self.pieces for token_id in piece.token_ids),
            finish_reason=self.pieces[-1].finish_reason or "",
            logprobs=token_logprobs(tokenizer, scored) if with_logprobs else None,
            tool_calls=self.tool_calls.whole(),
            thought_closed=next((piece.thought_closed for piece in self.pieces if piece.thought_closed), None),
        )


def token_logprobs(tokenizer: Tokenizer, scored: list[ScoredToken]) -> tuple[TokenLogprob, ...]:
    """Sampled tokens with their text."""
    return tuple(_token_logprob(tokenizer, each) for each in scored)


def prompt_logprobs(
    tokenizer: Tokenizer, token_ids: list[int], choice: GrowingChoice
) -> tuple[TokenLogprob | None, ...]:
    """The tokens of a prompt with the scores that came with its first choice."""
    scores = [each for piece in choice.pieces for each in piece.prompt_scores]
    scored = [ScoredToken(token_id, each) for token_id, each in zip(token_ids[1:], scores, strict=True)]
    return (None, *token_logprobs(tokenizer, scored))


def usage_of(tally: Tally) -> Usage:
    """The token counts of a request."""
    return Usage(tally.prompt, tally.completion, tally.cached, tally.reasoning)


def _token_logprob(tokenizer: Tokenizer, scored: ScoredToken) -> TokenLogprob:
    scores = scored.scores
    rivals = zip(scores.top_token_ids, scores.top_logprobs, strict=True)
    top = tuple(_spelled(tokenizer, token_id, logprob) for token_id, logprob in rivals)
    return _spelled(tokenizer, scored.token_id, scores.logprob, top)


def _spelled(tokenizer: Tokenizer, token_id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    spelled = tokenizer.id_to_bytes(token_id)
    return TokenLogprob(token_id, spelled.decode("utf-8", "replace"), spelled, logprob, top)

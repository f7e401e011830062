"""What one generation is asked for and what comes back, token by token. A leaf: imports nothing of ours but errors.

These are the nouns that cross from the front to the engine and back; every field is plain data, so that the wire needs
no knowledge of them. Text never appears here: the engine knows token ids only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class FinishReason(StrEnum):
    """Why a request ended; every accepted request ends with exactly one of these."""

    STOP = "stop"  # end-of-sequence token, stop token or (found by the front) stop string
    LENGTH = "length"  # max_tokens, or the context is full
    ABORT = "abort"  # the client went away, or asked
    ERROR = "error"  # this request failed; `TokenEvent.error` says why


class ThoughtClosed(StrEnum):
    """Why the engine, and not the model, closed a thought."""

    BUDGET = "budget"  # its tokens were spent
    LOOP = "loop"  # it went round in circles


@dataclass(frozen=True, slots=True)
class ThinkingLimit:
    """When the engine closes a thought, and with which tokens; how a tag is spelled in tokens is the front's to know.

    A thought runs from the beginning of the output (or from the opening tag there) to the closing tag. In the last
    tenth of its budget the odds of the closing tag rise wherever a sentence has just ended; once the budget is spent,
    or where the thought repeats itself, the closing tokens follow whatever the model would say.
    """

    budget: int  # tokens of the thought, without those that close it
    closing_token_ids: tuple[int, ...]  # what is put there: a line's end, the closing tag, a blank line
    end_token_ids: tuple[tuple[int, ...], ...]  # the closing tag in all its spellings; the first is the usual one
    # The opening tag in all its spellings, of which the output begins with one or has no thought; none: the prompt
    # ends inside the thought.
    begin_token_ids: tuple[tuple[int, ...], ...] = ()
    sentence_end_token_ids: tuple[int, ...] = ()  # after which a thought may well end
    loop_guard: bool = True  # whether a thought that repeats itself is closed


class GrammarKind(StrEnum):
    """In which language a grammar is written."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"  # a JSON list of texts
    LARK = "lark"  # or GBNF
    TOOL_CALLS = "tool_calls"  # as `text.tool_grammar` writes them down


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must look like. Sequences carry Lark alone: the front's check translates the rest."""

    kind: GrammarKind
    text: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. Validated at the edge (`http`); the engine asserts, it does not correct.

    The order of work on a row of logits: the mask of the grammar; repetition, presence and frequency penalties;
    logit_bias; the mask of `min_tokens`; then, if temperature is above zero: divide by temperature, top_k, top_p,
    min_p, draw. A temperature of zero takes the largest (the lowest id among equals). Log-probabilities are those of
    the model's own distribution, before any of this.
    """

    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0  # 64-bit unsigned; the front draws one when the client names none
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    max_tokens: int = 16
    min_tokens: int = 0  # end-of-sequence and stop tokens are masked until then
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    grammar: Grammar | None = None  # of the answer, which begins where `thinking` has ended the thought
    thinking: ThinkingLimit | None = None  # None: a thought, if there is one, takes as long as it takes
    num_logprobs: int | None = None  # None: no log-probabilities; 0: the sampled token's alone; n: the top n too

    @property
    def needs_history(self) -> bool:
        """Whether choosing a token looks at the tokens before it."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. `n` choices are n requests that differ in `choice_index` and share their prefix."""

    request_id: str
    prompt_token_ids: list[int]  # at least one
    sampling: SamplingParams
    choice_index: int = 0  # keys the random numbers, with the seed and the position
    priority: int = 0  # lower goes first; among equals who came first
    cache_salt: str = ""  # the prefix cache is shared by requests of the same salt alone
    # Tokens already generated and sent by an earlier engine; generation goes on after them as if nothing had happened.
    output_token_ids: list[int] = field(default_factory=list)
    # How many of the prompt's last tokens are to be scored: each has an event of its own, before the first token drawn.
    num_scored_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of probabilities of one sampled token and of the most likely ones, likeliest first."""

    logprob: float
    top_token_ids: list[int]
    top_logprobs: list[float]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token, or a request's end, or both.

    A request's events hold its tokens in order; exactly one, the last, has a `finish_reason`. An end-of-sequence or
    stop token is reported like any other token, in the event that finishes the request.
    """

    request_id: str
    token_id: int | None = None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0  # prompt tokens whose K/V came from the prefix cache; on the first event
    thought_closed: ThoughtClosed | None = None  # with the first of the tokens by which the engine closes the thought
    is_prompt: bool = False  # stands for the next of the prompt's scored tokens, whose `logprobs` it brings
    error: str | None = None  # with FinishReason.ERROR: a message fit for the client

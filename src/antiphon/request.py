"""The data of one generation: the request to the engine, and the events that it sends back. A leaf.

The front and the engine exchange these types. All fields are plain data, so the wire format needs no special cases.
Text never appears here, since the engine only knows token ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf


class FinishReason(StrEnum):
    """Why a request ended. Every accepted request ends with exactly one of these."""

    STOP = "stop"  # end-of-sequence token, stop token or (found by the front) stop string
    LENGTH = "length"  # max_tokens was reached, or the context is full
    ABORT = "abort"  # the client disconnected, or cancelled the request
    ERROR = "error"  # this request failed; `TokenEvent.error` says why


class ThoughtClosed(StrEnum):
    """Why the engine closed a thought instead of the model."""

    BUDGET = "budget"  # its budget was used up
    LOOP = "loop"  # it repeated itself


@dataclass(frozen=True, slots=True)
class ThinkingLimit:
    """When the engine closes a thought, and with which tokens. Only the front knows how tags are tokenized.

    A thought begins at the start of the output (or with the opening tag there) and ends with the closing tag. In the
    last tenth of its budget, the closing tag becomes more likely wherever a sentence has just ended. When the budget is
    used up, or the thought repeats itself, the closing tokens are inserted.
    """

    budget: int  # tokens of the thought, without those that close it
    closing_token_ids: tuple[int, ...]  # tokens to insert: a line break, the closing tag, a blank line
    end_token_ids: tuple[tuple[int, ...], ...]  # all tokenizations of the closing tag; the first is the usual one
    # All tokenizations of the opening tag. If the output does not begin with one of them, it has no thought. Empty if
    # the prompt ends inside the thought.
    begin_token_ids: tuple[tuple[int, ...], ...] = ()
    sentence_end_token_ids: tuple[int, ...] = ()  # tokens after which a thought may be closed
    loop_guard: bool = True  # whether to close a thought that repeats itself


class ServiceTier(StrEnum):
    """How soon a request has to be served."""

    DEFAULT = "default"
    FLEX = "flex"  # after all others of its priority, but not forever


class GrammarKind(StrEnum):
    """The language of a grammar."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"  # a JSON list of texts
    LARK = "lark"  # or GBNF
    TOOL_CALLS = "tool_calls"  # as written by `text.tool_grammar`


@dataclass(frozen=True, slots=True)
class Grammar:
    """The format of an answer. The engine only gets Lark; the front's check translates the other languages."""

    kind: GrammarKind
    text: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. `api` validates the values; the engine does not correct them.

    The steps on a row of logits: the mask of the grammar; repetition, presence and frequency penalties; logit_bias; the
    mask of `min_tokens`; then, if the temperature is above zero: divide by it, top_k, top_p, min_p, draw. A temperature
    of zero takes the largest logit (in a tie, the lowest id). Log-probabilities are those of the model's own
    distribution, before all of these steps.
    """

    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0  # 64-bit unsigned; drawn by the front if the client sets none
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    max_tokens: int = 16
    min_tokens: int = 0  # end-of-sequence and stop tokens are masked until then
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    grammar: Grammar | None = None  # of the answer, which begins after the thought (see `thinking`)
    thinking: ThinkingLimit | None = None  # None: thoughts are not limited
    num_logprobs: int | None = None  # None: no log-probabilities; 0: only the sampled token's; n: also the top n

    @property
    def needs_history(self) -> bool:
        """Whether choosing a token depends on the tokens before it."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. A request for `n` choices becomes n of these, with different `choice_index`."""

    request_id: str
    prompt_token_ids: list[int]  # at least one
    sampling: SamplingParams
    choice_index: int = 0  # with the seed and the position, determines the random numbers
    priority: int = 0  # lower numbers go first; equal ones by tier, then by the clients' fair shares
    service_tier: ServiceTier = ServiceTier.DEFAULT
    fairness_id: str = ""  # the client: requests with the same id share one fair share, in order of arrival
    fairness_weight: int = 1  # how much of the service that client gets, relative to others; at least 1
    cache_salt: str = ""  # the prefix cache is only shared by requests with the same salt
    # Tokens already generated by an earlier engine and sent. Generation continues after them.
    output_token_ids: list[int] = field(default_factory=list)
    # How many of the prompt's last tokens to score. Each has its own event, before the first drawn token.
    num_scored_tokens: int = 0
    reports_progress: bool = False  # send RequestProgress until the first token


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a request waits, and who sent it. The front decides by these; the engine does not know them."""

    first_token: float = inf  # seconds from its arrival
    whole_answer: float = inf  # seconds; the same for its end
    client: str = ""  # a key's name or an address
    retry_count: int | None = None  # as the client counts; None: it does not say
    digest: bytes = b""  # of its body: with the client, it tells a retry from another request; empty: of its tokens
    shares_with: str | None = None  # equal requests with the same name here are computed once; None: apart

    @property
    def is_retry(self) -> bool:
        """Whether the client says that it sent the request before."""
        return bool(self.retry_count)

    @property
    def is_new(self) -> bool:
        """Whether the client says that it did not."""
        return self.retry_count == 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of a request before its body is decoded."""

    num_bytes: int  # of the body
    fairness_id: str = ""
    fairness_weight: int = 1
    may_set_priority: bool = False  # whether it may ask to go before others


@dataclass(frozen=True, slots=True)
class RequestProgress:
    """How far the engine is with a request that has no token yet: its place in the queue, or how much it has read."""

    request_id: str
    position: int = 0  # in the queue; 1: the next to begin; 0: it has begun
    num_computed_tokens: int = 0  # of the prompt, including those found in the prefix cache
    num_cached_tokens: int = 0  # of those, found in the prefix cache


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of the probabilities of a sampled token and of the likeliest tokens, likeliest first."""

    logprob: float
    top_token_ids: list[int]
    top_logprobs: list[float]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token, the end of a request, or both.

    A request's events contain its tokens in order. Only the last event has a `finish_reason`. An end-of-sequence or
    stop token is reported like any other token, in the event that finishes the request.
    """

    request_id: str
    token_id: int | None = None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0  # prompt tokens whose K/V came from the prefix cache; in the first event
    num_drafted_tokens: int = 0  # verified in this event's step; in the last event of each step
    num_accepted_tokens: int = 0  # of those, tokens that were as drafted
    thought_closed: ThoughtClosed | None = None  # with the first of the tokens that close the thought
    is_prompt: bool = False  # the event contains the `logprobs` of the next scored token of the prompt
    error: str | None = None  # with FinishReason.ERROR: a message for the client

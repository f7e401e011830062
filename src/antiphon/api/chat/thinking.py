"""How long a model may think: turns the fields of a request into the engine's limit.

Owns the fields with which clients control thinking, and the numbers behind them. It reserves a part of max_tokens for
the answer, so a thought never uses up all of it. It does not know how a thought is closed.
"""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.errors import InvalidRequest
from antiphon.request import ThinkingLimit
from antiphon.text.thinking import ThoughtTokens

# `reasoning_effort` in tokens: 0 closes the thought before it begins, None means as much as max_tokens allows.
EFFORTS = {"none": 0, "minimal": 128, "low": 512, "medium": 2048, "high": 8192, "xhigh": None, "max": None}
RESERVE_SHARE, MAX_RESERVE = 4, 512  # reserved for the answer: a quarter of max_tokens, at most 512


@dataclass(frozen=True, slots=True)
class RequestedThinking:
    """What a request says about thinking."""

    enabled: bool | None  # None: not specified
    budget: int | None  # tokens; None: as many as max_tokens allows
    loop_guard: bool  # whether a thought that repeats itself is closed
    is_named: bool = False  # whether the request says how long to think, or not to

    @property
    def is_closed(self) -> bool:
        """Whether the request wants no thought at all."""
        return self.enabled is False

    def limit(
        self, tokens: ThoughtTokens, max_tokens: int, *, starts_in_thought: bool, default: int | None = None
    ) -> ThinkingLimit:
        """The engine's limit for a choice of `max_tokens`; `default`: the budget, unless the request names one."""
        unnamed = max_tokens if default is None or self.is_named else default
        wanted = 0 if self.is_closed else unnamed if self.budget is None else self.budget
        budget = min(wanted, _room(tokens, max_tokens))
        return tokens.limit(budget, starts_in_thought=starts_in_thought, loop_guard=self.loop_guard)


def requested_thinking(request: ChatCompletionRequest, *, thinks: bool, loop_guard: bool = True) -> RequestedThinking:
    """What the request says about thinking. `loop_guard` is the server's setting, for requests that do not set it.

    Raises:
        InvalidRequest: the request enables thinking for a model that does not think. A budget or an effort is accepted,
            since it is only a limit.
    """
    budget, enabled = request.thought_limit, request.wants_thinking
    if budget is None and request.reasoning_effort is not None:
        budget = EFFORTS[request.reasoning_effort]
    is_named = budget is not None or request.reasoning_effort is not None or enabled is False
    if budget == 0:
        enabled = False
    if not thinks and request.enable_thinking:
        message = "This model does not think before it answers; leave out 'enable_thinking'."
        raise InvalidRequest(message, param="enable_thinking")
    guard = loop_guard if request.loop_guard is None else request.loop_guard
    return RequestedThinking(enabled, budget, guard, is_named)


def _room(tokens: ThoughtTokens, max_tokens: int) -> int:
    """The most tokens a thought may have so that it can be closed and an answer fits after it."""
    reserve = min(-(-max_tokens // RESERVE_SHARE), MAX_RESERVE)
    room = max_tokens - reserve - tokens.num_closing_tokens
    return room if room >= 0 else max_tokens  # too few tokens for both anyway

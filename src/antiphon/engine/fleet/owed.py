"""How many tokens one engine still has to compute, without asking every request at every decision.

Owns one number. It is counted from the engine's requests when it is first needed, when a request has left the engine,
and after some steps; in between it follows the requests that are given and the tokens that are computed. Routing
compares engines by it, so an error costs time, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from antiphon.engine.requests.unfinished import Unfinished

_COUNT_EVERY = 32  # steps


class TokensOwed:
    """What one engine owes."""

    def __init__(self) -> None:
        self._tokens: float | None = None  # None: to be counted
        self._num_steps = 0  # since it was counted

    def count(self, requests: Iterable[Unfinished], estimate: Callable[[Unfinished], float]) -> float:
        """Tokens that the engine has to compute for these requests, which are all that it has."""
        if self._tokens is None:
            self._tokens = sum(map(estimate, requests))
            self._num_steps = 0
        return self._tokens

    def add(self, num_tokens: float) -> None:
        """The engine gets a request of so many tokens."""
        if self._tokens is not None:
            self._tokens += num_tokens

    def note_step(self, num_tokens: int) -> None:
        """The engine has computed so many tokens."""
        self._num_steps += 1
        if self._tokens is not None:
            self._tokens = None if self._num_steps >= _COUNT_EVERY else max(0.0, self._tokens - num_tokens)

    def clear(self) -> None:
        """Count again at the next question: a request has left, or another has taken its place."""
        self._tokens = None

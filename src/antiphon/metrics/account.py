"""Counts one request, from its arrival to its end.

Each request is counted once as received, then once as refused or accepted, and an accepted one ends once. All of it
happens on the event loop, between two scrapes, so these hold at every scrape:

    received = refused + accepted + arriving        accepted = finished + aborted + failed + running
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from antiphon.errors import AntiphonError, Overloaded, RateLimited
from antiphon.metrics.requests import RequestMetrics
from antiphon.tracing import GenerationTrace
from antiphon.tracing.attributes import DEGRADE_LEVEL, PREDICTED_WAIT, REASON

Outcome = Literal["refused", "finished", "aborted", "failed"]


class RequestAccount:
    """Counts one request from its arrival to its end.

    As a context manager it covers the time until the request is accepted: leaving it before `accept` counts a refusal.
    After `accept`, `end` must be called; only its first call counts. `outcome`, `first_token_after` (seconds after its
    arrival) and the numbers of tokens describe the result. `trace` gets the same, if the request is traced.
    """

    def __init__(self, metrics: RequestMetrics, endpoint: str, key: str = "") -> None:
        """`key` is the name of the request's API key; empty if the server has no keys."""
        self.key = key
        self.outcome: Outcome | None = None
        self.error: str | None = None  # the code of the error with which it failed
        self.trace: GenerationTrace | None = None
        self.first_token_after: float | None = None
        self.degraded: int | None = None  # the level at which its limits were lowered
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self._metrics = metrics
        self._endpoint = endpoint
        self._arrived_at = time.monotonic()
        self._is_decided = False  # accepted or refused
        self._accepted = False
        self._seen: set[str] = set()  # what is observed once for each request, and has been
        self._when_ended: list[Callable[[], None]] = []
        metrics.received.labels(endpoint).inc()
        metrics.arriving.labels(endpoint).inc()

    def __enter__(self) -> RequestAccount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_decided:
            self._refuse(error)
        if isinstance(error, RateLimited):
            self._metrics.count_rate_limited(self.key, error.type)

    def accept(self, predicted_wait: float | None = None) -> None:
        """Count the request as accepted: it has been handed to the engine.

        `predicted_wait` is the time from its arrival to its first token, in seconds, as predicted.
        """
        self._decide()
        self._accepted = True
        self._metrics.accepted.labels(self._endpoint).inc()
        self._metrics.running.labels(self._endpoint).inc()
        if predicted_wait is not None:
            self._metrics.predicted_wait.observe(predicted_wait)
            if self.trace is not None:
                self.trace.set({PREDICTED_WAIT: predicted_wait})

    def note_degraded(self, level: int) -> None:
        """Count the accepted request as one whose limits were lowered."""
        self.degraded = level
        if self.trace is not None:
            self.trace.set({DEGRADE_LEVEL: level})
        self._metrics.degraded_requests.labels(str(level)).inc()

    @property
    def is_running(self) -> bool:
        """Whether the request was accepted and has not ended."""
        return self._accepted and self.outcome is None

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call `call` when the running request ends; it must not raise."""
        self._when_ended.append(call)

    def observe_first_token(self, now: float, begun_at: float | None = None) -> None:
        """Record a choice's first token at `now` (time.monotonic); only the request's first one counts.

        `begun_at`: when the engine began with that choice.
        """
        if self.first_token_after is None:
            self.first_token_after = now - self._arrived_at
            self._metrics.first_token.observe(self.first_token_after)
        self.observe_begun(now if begun_at is None else begun_at)

    def observe_begun(self, begun_at: float) -> None:
        """Record when the engine began with the request (time.monotonic); only the first time counts."""
        if self._is_first("begun"):
            self._metrics.queue_wait.observe(max(0.0, begun_at - self._arrived_at))

    def observe_first_answer(self) -> None:
        """Record that there is something of an answer, not of a thought; only the first time counts."""
        if self._is_first("answer"):
            self._metrics.first_answer.observe(time.monotonic() - self._arrived_at)
            if self.trace is not None:
                self.trace.event("first_answer_token")

    def count_dropped(self, error: Overloaded) -> None:
        """Count an accepted request that the engine did not begin with in time; only the first time counts."""
        if self._is_first("dropped"):
            self._metrics.shed.labels(error.reason).inc()
        self.count_missed_deadline()

    def count_missed_deadline(self) -> None:
        """Count an accepted request that was not done in time; only the first time counts."""
        if self._is_first("missed"):
            self._metrics.deadline_missed.inc()
            if self.trace is not None:
                self.trace.event("deadline_missed")

    def count_token(self) -> None:
        """Count a token that was received from the engine."""
        self._metrics.generated_tokens.value += 1

    def observe_gap(self, seconds: float) -> None:
        """Record the time between two tokens of a choice."""
        self._metrics.gap.observe(seconds)

    def observe_time_per_token(self, seconds: float) -> None:
        """Record the mean time between two tokens of a choice that has ended."""
        self._metrics.per_token.observe(seconds)

    def count_finished_choice(self, finish_reason: str) -> None:
        """Count a choice that is complete."""
        self._metrics.choices_finished.labels(finish_reason).inc()
        if self.trace is not None:
            self.trace.finish_choice(finish_reason)

    def count_closed_thought(self, reason: str) -> None:
        """Count a thought that the server closed."""
        self._metrics.thoughts_closed.labels(reason).inc()
        if self.trace is not None:
            self.trace.event("thought_closed", attributes={REASON: reason})

    def count_tokens(self, prompt: int, cached: int, generated: int, reasoning: int) -> None:
        """Count the request's tokens, of which those that were generated are counted already; once, at its end."""
        self.prompt_tokens, self.generated_tokens = prompt, generated
        self._metrics.prompt_length.observe(prompt)
        self._metrics.answer_length.observe(generated)
        self._metrics.prompt_tokens.inc(prompt)
        self._metrics.cached_tokens.inc(cached)
        self._metrics.reasoning_tokens.inc(reasoning)
        if self.trace is not None:
            self.trace.set_tokens(prompt, cached, generated, reasoning)
        if self.key:
            self._metrics.key_tokens.labels(self.key, "prompt").inc(prompt)
            self._metrics.key_tokens.labels(self.key, "generated").inc(generated)

    def end(self, outcome: Outcome) -> None:
        """Count the request as ended; later calls have no effect."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        now = time.monotonic()
        self.observe_begun(now)  # if the engine never began with it
        self._metrics.running.labels(self._endpoint).dec()
        self._metrics.ended[outcome].labels(self._endpoint).inc()
        self._metrics.duration.labels(self._endpoint).observe(now - self._arrived_at)
        if self.trace is not None:
            self.trace.end(outcome, self.error)
        for call in self._when_ended:
            call()

    def _decide(self) -> None:
        self._is_decided = True
        self._metrics.arriving.labels(self._endpoint).dec()

    def _refuse(self, error: BaseException | None) -> None:
        self._decide()
        self.outcome = "refused"
        self._metrics.refused.labels(self._endpoint, error_code(error)).inc()
        if self.trace is not None:
            self.trace.refuse(error_code(error), error.predicted_wait if isinstance(error, Overloaded) else None)
        if isinstance(error, Overloaded):
            self._metrics.shed.labels(error.reason).inc()
            if error.predicted_wait is not None:
                self._metrics.predicted_wait.observe(error.predicted_wait)

    def _is_first(self, what: str) -> bool:
        is_first = what not in self._seen
        self._seen.add(what)
        return is_first


def error_code(error: BaseException | None) -> str:
    """The label of a refusal or a failure, one of a small fixed set."""
    if isinstance(error, AntiphonError):
        return error.code or error.type
    return "client_gone" if error is None or not isinstance(error, Exception) else "internal_error"

"""Requests as their users see them: all attempts of a request together, and how long it took.

Times count from when a request was due, or from when it was first sent if nobody had a schedule. So the waiting of a
client that is late, and of a client that was refused and tries again, is part of every latency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from antiphon.bench.records import RequestRecord


@dataclass(frozen=True, slots=True)
class MeasuredRequest:
    """One request with all its attempts, in their order. Durations are in seconds."""

    attempts: tuple[RequestRecord, ...]

    @property
    def first(self) -> RequestRecord:
        """The first attempt."""
        return self.attempts[0]

    @property
    def last(self) -> RequestRecord:
        """The attempt that decided how the request ended."""
        return self.attempts[-1]

    @property
    def start(self) -> float:
        """When the latencies begin, in seconds since the start of the run."""
        return self.first.sent if self.first.due is None else self.first.due

    @property
    def answered(self) -> bool:
        """Whether the whole answer came."""
        return self.last.end == "answered"

    @property
    def counts(self) -> bool:
        """Whether the request says something about the server: the load test itself did not stop it."""
        return self.last.end != "cancelled"

    @property
    def lateness(self) -> float | None:
        """How long after it was due the request was sent; None if nothing was due."""
        return None if self.first.due is None else max(0.0, self.first.sent - self.first.due)

    @property
    def first_token(self) -> float | None:
        """Until the first token, of thought or answer."""
        return self._since_start(self.last.first_token)

    @property
    def first_answer(self) -> float | None:
        """Until the first token of the answer, after any thought."""
        return self._since_start(self.last.first_answer)

    @property
    def end_to_end(self) -> float:
        """Until the answer was complete, or it was clear that there will be none."""
        return self.last.ended - self.start

    @property
    def tokens(self) -> int:
        """Generated tokens of the last attempt, thought and answer."""
        return self.last.thought_tokens + self.last.answer_tokens

    @property
    def time_per_token(self) -> float | None:
        """Mean time per token after the first: (last token - first token) / (tokens - 1); None for a single token."""
        first, last = self.last.first_token, self.last.last_token
        if first is None or last is None or self.tokens < 2:
            return None
        return (last - first) / (self.tokens - 1)

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self.start


def measured_requests(requests: Iterable[RequestRecord]) -> list[MeasuredRequest]:
    """Attempts put together to requests, in the order of their starts."""
    attempts: dict[tuple[int, int], list[RequestRecord]] = defaultdict(list)
    for request in requests:
        attempts[request.stage, request.number].append(request)
    found = [MeasuredRequest(tuple(sorted(each, key=lambda record: record.attempt))) for each in attempts.values()]
    return sorted(found, key=lambda request: (request.start, request.first.number))


def arrivals(request: RequestRecord) -> Iterator[tuple[float, float]]:
    """When tokens arrived, and how many at each moment: (seconds since the start of the run, tokens).

    A part of a stream may hold several tokens, and nothing says how many each one has: they are given equal shares.
    """
    if request.first_token is None:
        return
    share = (request.thought_tokens + request.answer_tokens) / (len(request.gaps_ms) + 1)
    moment = request.first_token
    yield moment, share
    for gap in request.gaps_ms:
        moment += gap / 1000
        yield moment, share

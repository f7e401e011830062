"""Decides whether a request is accepted: by the time that it would wait, not by the number of those before it.

Owns the number of unfinished requests of each client, and the tickets of those that were refused. A request is refused
if its first token is predicted later than its client waits for it, or its end later than its client waits for the whole
answer. A request that an engine would begin with at once is always accepted: no later time could be better. New
requests also wait for those that have a ticket, which were promised their time. `expected_work` has what requests
probably need, `capacity` what an engine can do, `forecast` predicts, `margin` raises predictions that were too short,
and the client (`client`) owns the requests.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from operator import itemgetter

from antiphon.engine.admission.capacity import Capacity
from antiphon.engine.admission.expected_work import (
    AFTER_ALL,
    ExpectedWork,
    least_work,
    num_before_new,
    num_before_undecoded,
)
from antiphon.engine.admission.forecast import Forecast, Work
from antiphon.engine.admission.lengths import AnswerLengths
from antiphon.engine.admission.margin import Margin
from antiphon.engine.admission.tickets import Holder, RetryBudget, Tickets, TurnedAway
from antiphon.engine.requests.admitted import Prediction
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.errors import Overloaded
from antiphon.request import Arrival, FinishReason, GenerateRequest, Terms

_UNKNOWN_SPACING = 1.0  # seconds between two tickets while no step was measured
# A client's requests may be so many times as many as there are free places (a "dynamic threshold", Choudhury and Hahne,
# IEEE/ACM Transactions on Networking 6, 1998): one client alone gets three quarters, several get equal parts, and some
# places are always left for a client that has none.
_CLIENT_SHARE = 3


@dataclass(frozen=True, slots=True)
class Load:
    """An engine and its work: what a request that it would get has to wait for."""

    capacity: Capacity
    unfinished: Collection[Unfinished]  # in order of arrival
    context_length: int
    num_engines: int = 1  # that share the requests which come back later
    only_grows: bool = False  # new requests come after those that are there, and `capacity` is notified if one leaves


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A request, of one sequence or several, as it is decided on."""

    terms: Terms
    holder: Holder
    prediction: Prediction  # of its last sequence
    delay: float  # seconds by which it delays those behind it at its engine
    spacing: float  # the same among all requests that come back, which all engines serve
    margins: tuple[float, float] = (1.0, 1.0)  # factors for the time of the first token, and of the end

    @property
    def excess(self) -> float:
        """By how many seconds it would be late, with the margins; negative if it is in time."""
        late = self.prediction.first_token * self.margins[0] - self.terms.first_token
        return max(late, self.prediction.end * self.margins[1] - self.terms.whole_answer)


class Admission:
    """Decides on new requests, for all engines."""

    def __init__(self, max_requests: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`max_requests`: the limit on unfinished requests."""
        self._expected = ExpectedWork()
        self.max_requests = max_requests
        self._clock = clock
        self._tickets = Tickets()
        self._turned_away = TurnedAway()
        self._retries = RetryBudget()
        self._first_margin, self._end_margin = Margin(), Margin()
        self._num_unfinished: Counter[str] = Counter()  # requests of each client
        self._total_unfinished = 0

    # --- what it learns

    @property
    def lengths(self) -> AnswerLengths:
        """How long answers are."""
        return self._expected.lengths

    def note_first(self, unfinished: Unfinished, num_cached: int) -> None:
        """A request's first event came; so many tokens of its prompt were cached."""
        self._expected.note_first(unfinished, num_cached)
        if unfinished.predicted.wait > 0:
            self._first_margin.observe(unfinished.predicted.first_token, unfinished.age)

    def note_end(self, unfinished: Unfinished, reason: FinishReason) -> None:
        """A request that was accepted has ended."""
        client = unfinished.request.fairness_id
        self._total_unfinished -= 1
        self._num_unfinished[client] -= 1
        if not self._num_unfinished[client]:
            del self._num_unfinished[client]
        self._expected.note_end(unfinished, reason)
        if unfinished.predicted.wait > 0:
            self._note_lateness(unfinished, reason)

    def _note_lateness(self, unfinished: Unfinished, reason: FinishReason) -> None:
        """Compare when a request ended with what was predicted, or how long its client waited, if it gave up."""
        predicted, age = unfinished.predicted, unfinished.age
        was_given_up = reason in (FinishReason.ABORT, FinishReason.ERROR)
        if was_given_up and not unfinished.parts.num_tokens:
            self._first_margin.observe_at_least(predicted.first_token, age)
        if unfinished.terms.whole_answer < math.inf:
            (self._end_margin.observe_at_least if was_given_up else self._end_margin.observe)(predicted.end, age)

    # --- what it decides

    def check_early(self, arrival: Arrival, terms: Terms, loads: Iterable[Load]) -> None:
        """Refuse a request that `admit` would refuse whatever is in its body, with any of the engines.

        Also refuses one that comes back too early, as many clients do that ignore Retry-After.
        `terms`: the longest that it can have. It costs little, and no ticket is used up.

        Raises:
            Overloaded: as for `admit`.
        """
        if terms.digest and self._tickets.pending(_identity((), terms), self._clock()) == 0:
            return
        least, load = self._least_late(arrival, terms, loads)
        if full := self._is_full(arrival.fairness_id, arrival.fairness_weight, 1):
            raise self._refusal(*full, self._guess(arrival, terms, load))
        if (least > 0 and not arrival.may_set_priority) or self._is_too_early(arrival, terms, load):
            raise self._too_late(self._guess(arrival, terms, load))

    def admit(self, requests: Sequence[GenerateRequest], terms: Terms, load: Load) -> Prediction:
        """Accept requests that belong together, or none of them; returns what is predicted for the last of them.

        Raises:
            Overloaded: they would wait longer than their `terms` allow, or there are too many; with a ticket if there
                is one soon enough.
        """
        candidate, first = self._candidate(requests, terms, load), requests[0]
        had_ticket = self._tickets.take_back(candidate.holder.identity, self._clock())
        if full := self._is_full(first.fairness_id, first.fairness_weight, len(requests)):
            raise self._refusal(*full, candidate, had_ticket=had_ticket)
        if candidate.prediction.wait > 0 and not self._is_in_time(candidate, had_ticket=had_ticket):
            raise self._too_late(candidate, had_ticket=had_ticket)
        self._retries.earn()
        self._total_unfinished += len(requests)
        self._num_unfinished[first.fairness_id] += len(requests)
        load.capacity.note_new_request()
        return candidate.prediction

    def has_place(self, request: GenerateRequest) -> bool:
        """Whether there may be one more unfinished request of this client."""
        return self._is_full(request.fairness_id, request.fairness_weight, 1) is None

    def admit_for_free(self, request: GenerateRequest) -> None:
        """Accept a request that no engine has to compute."""
        self._total_unfinished += 1
        self._num_unfinished[request.fairness_id] += 1

    def start_before(self, terms: Terms, predicted: Prediction) -> float:
        """Seconds within which an accepted request should begin; after those, ask `time_left`.

        A request that was accepted although it will be late gets all the time that its client waits.
        """
        latest = predicted.latest_start(terms.first_token, terms.whole_answer)
        return latest if latest >= predicted.wait else min(terms.first_token, terms.whole_answer)

    def time_left(self, unfinished: Unfinished, load: Load) -> float:
        """Seconds that a request which has not begun can still wait and be in time for its client."""
        terms = unfinished.terms
        predicted = self._candidate([unfinished.request], terms, load).prediction
        return predicted.latest_start(terms.first_token, terms.whole_answer) - unfinished.age

    def give_up(self, late: Unfinished, load: Load) -> Overloaded:
        """Why a request that was accepted, and is not part of `load` any more, ends in the queue."""
        candidate = self._candidate([late.request], late.terms, load)
        message = f"The request waited for {late.age:.1f} seconds, and its answer would now be too late"
        return self._refusal(message, "queue_timeout", candidate)

    def wait_after_all(self, load: Load) -> float:
        """Seconds until the engine would begin with a new request that comes after all that it has."""
        return self._now(load).predict(AFTER_ALL).wait

    def tokens_owed_of(self, unfinished: Unfinished, context_length: int) -> float:
        """Tokens that an engine still has to compute for one request."""
        return self._expected.tokens_owed(unfinished, context_length)

    def _is_full(self, client: str, weight: int, num_requests: int) -> tuple[str, str] | None:
        """Why there is no place for so many more requests of a client, as a message and a reason; None if there is."""
        free = self.max_requests - self._total_unfinished
        if num_requests > free:
            return f"The server is at its limit of {self.max_requests} unfinished requests", "queue_full"
        mine = self._num_unfinished[client]
        if client and mine >= _CLIENT_SHARE * weight * (free - num_requests + 1):
            message = f"You have {mine} unfinished requests, and the remaining places are for other clients"
            return message, "client_queue_full"
        return None

    def _is_in_time(self, candidate: _Candidate, *, had_ticket: bool) -> bool:
        """Whether a request that has to wait is accepted."""
        if had_ticket:  # its time was predicted when it was refused, which was not exact
            return candidate.excess <= candidate.delay
        if self._was_told_later(candidate.holder.identity, candidate.terms):
            return False
        if candidate.excess + self._tickets.ahead(self._clock(), candidate.holder) * candidate.spacing <= 0:
            return True
        return candidate.excess <= 0 and candidate.terms.is_retry and self._retries.spend()

    def _too_late(self, candidate: _Candidate, *, had_ticket: bool = False) -> Overloaded:
        seconds = math.ceil(candidate.prediction.first_token)
        message = f"The server is busy: the first token would come in about {seconds} seconds, which is too late"
        return self._refusal(message, "predicted_wait", candidate, had_ticket=had_ticket)

    def _refusal(self, message: str, reason: str, candidate: _Candidate, *, had_ticket: bool = False) -> Overloaded:
        """The refusal, with a ticket: the one that the request has already, unless it is a new one, or another."""
        now = self._clock()
        retry_after = None if candidate.terms.is_new else self._tickets.pending(candidate.holder.identity, now)
        if retry_after is None:  # one that came at its time has nobody before it
            earliest = max(candidate.excess, candidate.spacing)
            retry_after = self._tickets.issue(candidate.holder, now, earliest, 0.0 if had_ticket else candidate.spacing)
        advice = "there will be no place for it within the next minute"
        if retry_after is None:
            self._turned_away.note(candidate.holder.identity, now)
        else:
            advice = f"please try again in {max(1, math.ceil(retry_after))} seconds"
        predicted = candidate.prediction.first_token
        return Overloaded(f"{message}; {advice}.", retry_after=retry_after, reason=reason, predicted_wait=predicted)

    # --- the forecast

    @property
    def _margins(self) -> tuple[float, float]:
        return self._first_margin.factor, self._end_margin.factor

    def _now(self, load: Load) -> Forecast:
        capacity, num_requests = load.capacity, len(load.unfinished)
        works = partial(self._expected.of_accepted, load.unfinished, load.context_length)
        forecast = capacity.forecast(works, only_grows=load.only_grows)
        if not load.only_grows or len(forecast) == num_requests:
            return forecast
        newest = islice(load.unfinished, len(forecast), None)
        if len(forecast) < num_requests and self._expected.add_newest(forecast, newest, load.context_length):
            return forecast
        capacity.forget_forecast()
        return self._now(load)

    def _candidate(self, requests: Sequence[GenerateRequest], terms: Terms, load: Load) -> _Candidate:
        num_before = num_before_new(requests[0], load.unfinished, self._now(load))
        works = self._expected.of_new(requests, num_before, load.context_length)
        holder = Holder(_identity(requests, terms), requests[0].fairness_id, num_before + 1)
        return self._predicted(works, holder, terms, load)

    def _guess(self, arrival: Arrival, terms: Terms, load: Load) -> _Candidate:
        """A request that is not decoded, as it probably is."""
        num_before = num_before_undecoded(arrival, load.unfinished, self._now(load))
        work = self._expected.of_undecoded(arrival, num_before, load.context_length)
        return self._predicted([work], Holder(_identity((), terms), arrival.fairness_id, num_before + 1), terms, load)

    def _least_excess(self, arrival: Arrival, terms: Terms, load: Load) -> float:
        """By how many seconds a request that is not decoded would be late, at least; 0 if it may be in time."""
        num_before = num_before_undecoded(arrival, load.unfinished, self._now(load))
        holder = Holder(_identity((), terms), arrival.fairness_id, num_before + 1)
        candidate = self._predicted([least_work(arrival, num_before)], holder, terms, load)
        if candidate.prediction.wait <= 0:
            return 0.0
        num_tickets = 0 if terms.is_retry else self._tickets.ahead(self._clock(), holder)
        return max(0.0, candidate.excess + num_tickets * candidate.spacing)

    def _least_late(self, arrival: Arrival, terms: Terms, loads: Iterable[Load]) -> tuple[float, Load]:
        """The first engine with which a request may be in time, or the one with which it is the least late."""
        rated = []
        for load in loads:
            rated.append((self._least_excess(arrival, terms, load), load))
            if rated[-1][0] <= 0:
                return rated[-1]
        return min(rated, key=itemgetter(0))

    def _predicted(self, works: Sequence[Work], holder: Holder, terms: Terms, load: Load) -> _Candidate:
        forecast = self._now(load)
        delay = sum(forecast.service_seconds(work) for work in works) or _UNKNOWN_SPACING
        if len(works) > 1:
            forecast = forecast.with_more(works[:-1])
        prediction, spacing = forecast.predict(works[-1]), delay / load.num_engines
        return _Candidate(terms, holder, prediction, delay, spacing, self._margins)

    def _is_too_early(self, arrival: Arrival, terms: Terms, load: Load) -> bool:
        """Whether it was refused and comes back before its time, while an engine would not begin with it at once."""
        if not terms.digest or not self._was_told_later(_identity((), terms), terms):
            return False
        num_before = num_before_undecoded(arrival, load.unfinished, self._now(load))
        holder = Holder(_identity((), terms), arrival.fairness_id, num_before + 1)
        return self._predicted([least_work(arrival, num_before)], holder, terms, load).prediction.wait > 0

    def _was_told_later(self, identity: bytes, terms: Terms) -> bool:
        """Whether a request was refused, and its time has not come."""
        now = self._clock()
        return not terms.is_new and bool(self._tickets.pending(identity, now) or self._turned_away.knows(identity, now))


def _identity(requests: Sequence[GenerateRequest], terms: Terms) -> bytes:
    """What tells a retry from another request: the client, and the body, or else the prompts."""
    digest = blake2b(terms.client.encode() + b"\0" + terms.digest, digest_size=16)
    for request in () if terms.digest else requests:
        digest.update(b"\0" + array("I", request.prompt_token_ids).tobytes())
    return digest.digest()

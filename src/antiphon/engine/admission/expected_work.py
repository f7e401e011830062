"""What requests will probably need of an engine: turns them into `Work` for the forecast.

Owns what was learned for that: how long thoughts and answers are, and how much of a prompt is usually in the prefix
cache. Knows nothing of time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from math import inf

from antiphon.engine.admission.forecast import Forecast, Rank, Work
from antiphon.engine.admission.lengths import AnswerLengths
from antiphon.engine.requests.answer_parts import AnswerParts
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.request import Arrival, FinishReason, GenerateRequest, ServiceTier

_LAST_ARRIVAL = 1 << 62  # a number of arrival
_MEMORY = 0.95  # weight of the past in the share of prompts that is cached, per request
_BYTES_PER_TOKEN = 4  # of a request's body, roughly
AFTER_ALL = Work((0, True, inf, _LAST_ARRIVAL), 1.0, 1.0)  # of a request behind all others of the usual priority


class ExpectedWork:
    """Estimates the work of requests."""

    def __init__(self) -> None:
        self.lengths = AnswerLengths()
        self._cached_share = 0.0  # of a prompt

    def note_first(self, unfinished: Unfinished, num_cached: int) -> None:
        """A request's first event came; so many tokens of its prompt were cached."""
        share = num_cached / len(unfinished.request.prompt_token_ids)
        self._cached_share = _MEMORY * self._cached_share + (1 - _MEMORY) * share

    def note_end(self, unfinished: Unfinished, reason: FinishReason) -> None:
        """A request has ended."""
        if unfinished.parts.num_tokens:
            self.lengths.observe(unfinished.parts, is_complete=reason is FinishReason.STOP)

    def of_accepted(self, accepted: Iterable[Unfinished], context_length: int) -> Iterable[Work]:
        """The work that is left of requests, which are in order of arrival."""
        places: Counter[str] = Counter()
        for number, each in sorted(enumerate(accepted), key=lambda item: _kind(item[1].request)):
            places[each.request.fairness_id] += 1
            yield self._of_one(each, places[each.request.fairness_id], number, context_length)

    def add_newest(self, forecast: Forecast, newest: Iterable[Unfinished], context_length: int) -> bool:
        """Add requests to a forecast that arrived after all that it has.

        Returns whether that was possible: a request that comes before others of its client changes their ranks.
        """
        for each in newest:
            if (num_before := num_before_kind(each.request.fairness_id, _kind(each.request), forecast)) is None:
                return False
            forecast.add(self._of_one(each, num_before + 1, len(forecast), context_length))
        return True

    def _of_one(self, accepted: Unfinished, place: int, number: int, context_length: int) -> Work:
        return Work(
            _rank(accepted.request, place, number),
            self._left_to_read(accepted),
            self._left_to_write(accepted, context_length),
            is_running=accepted.stream.begun_at is not None,
            client=accepted.request.fairness_id,
        )

    def of_new(self, requests: Sequence[GenerateRequest], num_before: int, context_length: int) -> list[Work]:
        """The work of new requests of one client; `num_before`: how many others of that client come before them."""
        return [
            Work(
                _rank(request, num_before + number, _LAST_ARRIVAL + number),
                self._to_read(request) + len(request.output_token_ids),
                self._to_write(
                    request, AnswerParts(request.sampling.thinking, request.output_token_ids), context_length
                ),
            )
            for number, request in enumerate(requests, start=1)
        ]

    def of_undecoded(self, arrival: Arrival, num_before: int, context_length: int) -> Work:
        """The probable work of a request of which only the size is known."""
        prompt = arrival.num_bytes / _BYTES_PER_TOKEN
        answer = self.lengths.typical(max(1.0, context_length - prompt))
        return Work(_first_rank(arrival, num_before), max(1.0, prompt * (1 - self._cached_share)), answer)

    def tokens_owed(self, unfinished: Unfinished, context_length: int) -> float:
        """Tokens that an engine still has to compute for a request: of its prompt, and expected ones of its answer."""
        return self._left_to_read(unfinished) + self._left_to_write(unfinished, context_length)

    def _left_to_read(self, unfinished: Unfinished) -> float:
        if not unfinished.is_computed:  # nothing of it, or what another engine had computed
            return self._to_read(unfinished.request) + len(unfinished.output_token_ids)
        if unfinished.output_token_ids:
            return 0.0
        return float(unfinished.request.num_scored_tokens - unfinished.num_scored_tokens)

    def _left_to_write(self, unfinished: Unfinished, context_length: int) -> float:
        return self._to_write(unfinished.request, unfinished.parts, context_length)

    def _to_read(self, request: GenerateRequest) -> float:
        """Tokens of a prompt that are probably not cached; at least the last one has to be computed."""
        if request.choice_index:
            return 1.0  # the first choice computes it
        num_findable = len(request.prompt_token_ids) - request.num_scored_tokens
        return max(1.0, num_findable * (1 - self._cached_share) + request.num_scored_tokens)

    def _to_write(self, request: GenerateRequest, parts: AnswerParts, context_length: int) -> float:
        sampling = request.sampling
        limit = min(sampling.max_tokens, context_length - len(request.prompt_token_ids))
        least = limit if sampling.ignore_eos and not sampling.stop_token_ids else min(sampling.min_tokens, limit)
        return max(self.lengths.remaining(parts, limit), least - parts.num_tokens)


def least_work(arrival: Arrival, num_before: int) -> Work:
    """The least work that a request can be of which only the size is known: one token to read, and one to write.

    All that can be in its body makes it begin and end later, unless it can set its priority.
    """
    return Work(_first_rank(arrival, num_before), 1.0, 1.0)


def num_before_kind(client: str, kind: tuple[int, bool], forecast: Forecast) -> int | None:
    """How many requests of a client come before a new one of this kind; None if that takes a look at each of them."""
    if forecast.last_kind is not None and kind < forecast.last_kind:
        return None
    return forecast.num_of_client[client]


def num_before_new(request: GenerateRequest, accepted: Collection[Unfinished], forecast: Forecast) -> int:
    """How many requests of the same client come before a new one; `forecast` is that of the accepted ones."""
    return _num_before(request.fairness_id, _kind(request), accepted, forecast)


def num_before_undecoded(arrival: Arrival, accepted: Collection[Unfinished], forecast: Forecast) -> int:
    """How many requests of the same client come before a new one of which only the size is known, at least."""
    return _num_before(arrival.fairness_id, (0, False), accepted, forecast)


def _num_before(client: str, kind: tuple[int, bool], accepted: Collection[Unfinished], forecast: Forecast) -> int:
    known = num_before_kind(client, kind, forecast)
    if known is not None:
        return known
    return sum(each.request.fairness_id == client and _kind(each.request) <= kind for each in accepted)


def _kind(request: GenerateRequest) -> tuple[int, bool]:
    return request.priority, request.service_tier is ServiceTier.FLEX


def _rank(request: GenerateRequest, place: int, number: int) -> Rank:
    return (*_kind(request), place / request.fairness_weight, number)


def _first_rank(arrival: Arrival, num_before: int) -> Rank:
    return 0, False, (num_before + 1) / arrival.fairness_weight, _LAST_ARRIVAL

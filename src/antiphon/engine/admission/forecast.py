"""Predicts when a request would begin and end, from the work that the engine has and what its steps cost.

Pure: a `Forecast` is made of the work at one moment, and knows no clock, requests or messages. Its model of the engine:
every running sequence advances one token a step; a sequence that ends gives its place to the next in order; prompts
are computed beside the answers and add their tokens' cost to the steps. `turns` describes the order. All clients are
taken to have equal counters, so a client's newcomer is not behind another's backlog, but takes turns with it.

A place in the queue is found by bisection, and a newcomer at its end is added without computing the rest again, so
that accepting or refusing many requests between two steps is cheap. More work never makes a prediction earlier. Where
nothing would delay a request, its wait is exactly 0. All durations are in seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import accumulate

from antiphon.engine.budget import StepBudget
from antiphon.engine.requests.admitted import Prediction

Rank = tuple[int, bool, float, int]  # priority, whether it is flex, place among its client's / weight, arrival

_PREEMPTION_MARGIN = 1.0  # places by which a newcomer has to come first to take a running sequence's place
_SHORT_SHARE = 4  # the shortest prompts get one in so many of a step's prompt tokens; see `prefill`


@dataclass(frozen=True, slots=True)
class Work:
    """What one sequence still needs."""

    rank: Rank
    prompt: float  # tokens of its prompt that are not computed
    answer: float  # expected tokens of its answer
    is_running: bool = False
    client: str = ""  # whose fair share it uses

    @property
    def kind(self) -> tuple[int, bool]:
        """Its priority, and whether it is flex: what decides before fair shares do."""
        return self.rank[:2]


class Forecast:
    """The engine's future, if nothing more arrives."""

    def __init__(self, costs: StepBudget, num_places: int, works: Iterable[Work]) -> None:
        """`num_places`: how many sequences run at once."""
        self._costs = costs
        self._num_places = num_places
        self._works = list(works)
        self.num_of_client = Counter(work.client for work in self._works)
        self.last_kind = max((work.kind for work in self._works), default=None)  # the kind that is served last
        ordered = sorted(self._works, key=lambda work: (not work.is_running, work.rank))
        running = [work for work in ordered if work.is_running]
        self._running, preempted = running[:num_places], running[num_places:]
        self._waiting = sorted([*preempted, *ordered[len(running) :]], key=lambda work: work.rank)
        self._prompts = sorted(work.prompt for work in self._running if work.prompt)
        self._prompt_sums = [0.0, *accumulate(self._prompts)]
        self.tokens_owed = sum(work.prompt + work.answer for work in ordered)
        self._ranks = [work.rank for work in self._waiting]
        self._starts: list[float] = []  # the step in which each waiting sequence starts, and a newcomer behind them
        self._read: list[float] = []  # prompt tokens computed before each
        self._ends: list[float] = []  # a heap: the step in which each place is free; empty while a place is free now
        self._simulate()

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self._works)

    def with_more(self, works: Iterable[Work]) -> Forecast:
        """The same with more work."""
        return Forecast(self._costs, self._num_places, [*self._works, *works])

    def add(self, work: Work) -> None:
        """Add a sequence that has just arrived. The forecast is then what it would be if it was made with it."""
        self._works.append(work)
        self.num_of_client[work.client] += 1
        self.last_kind = max(self.last_kind or work.kind, work.kind)
        self.tokens_owed += work.prompt + work.answer
        at = len(self._ranks) if not self._ranks or work.rank > self._ranks[-1] else bisect_left(self._ranks, work.rank)
        self._ranks.insert(at, work.rank)
        self._waiting.insert(at, work)
        if at == len(self._ranks) - 1:
            self._start(work)
        else:
            self._simulate()

    def predict(self, work: Work) -> Prediction:
        """When a newcomer would begin and end; all 0 while no step was measured."""
        if not self._costs.is_known:
            return Prediction()
        step = self._costs.predict(self._num_active)
        at = bisect_left(self._ranks, work.rank)
        start, read = self._starts[at], self._read[at]
        if start == 0 or self._num_ahead(work.rank) + at < self._num_places:
            start, read = 0.0, self._read_before(work.prompt) + self._read[at] - self._read[0]
        wait = start * step + read * self._costs.seconds_per_token
        reading = work.prompt / self._prompt_tokens_per_step * step + work.prompt * self._costs.seconds_per_token
        first_token = wait + max(step, reading)
        return Prediction(wait, first_token, first_token + work.answer * step)

    def service_seconds(self, work: Work) -> float:
        """How long such a request delays those behind it while all places are taken."""
        if not self._costs.is_known:
            return 0.0
        steps = work.answer + work.prompt / self._prompt_tokens_per_step
        step = self._costs.predict(self._num_active)
        return steps * step / self._num_places + work.prompt * self._costs.seconds_per_token

    def _simulate(self) -> None:
        self._starts, self._read, self._ends = [], [], []
        self._note_newcomer(sum(work.prompt for work in self._running))
        for work in self._waiting:
            self._start(work)

    def _start(self, work: Work) -> None:
        """Give the next sequence in order the place that is free first."""
        start = self._starts[-1]
        if self._ends:
            heapreplace(self._ends, start + work.prompt / self._prompt_tokens_per_step + work.answer)
        self._note_newcomer(self._read[-1] + work.prompt)

    def _note_newcomer(self, read: float) -> None:
        """Note when a newcomer behind all others would start.

        While a place is free now, nothing needs to be known of the others. Once none is, a step has as many sequences
        as there are places, whatever is added, so the ends that were computed stay true.
        """
        num_free = self._num_places - len(self._running) - len(self._starts)
        if num_free <= 0 and not self._ends:
            self._ends = self._first_ends()
        self._starts.append(0.0 if num_free > 0 else self._ends[0])
        self._read.append(read)

    def _first_ends(self) -> list[float]:
        """When each of the first sequences ends that fill all places, as a heap."""
        ends, read = [], 0.0
        for work in self._running:
            read += work.prompt
            ends.append(read / self._prompt_tokens_per_step + work.answer)
        for work in self._waiting[: self._num_places - len(self._running)]:
            ends.append(work.prompt / self._prompt_tokens_per_step + work.answer)
        heapify(ends)
        return ends

    @property
    def _num_active(self) -> int:
        """Sequences in a step while the newcomer runs."""
        return min(self._num_places, len(self._works) + 1)

    @property
    def _prompt_tokens_per_step(self) -> int:
        others = self._num_active - 1
        return max(1, self._costs.tokens(others, len(self._prompts) + 1) - others)

    def _num_ahead(self, rank: Rank) -> int:
        """Running sequences that do not give way to a newcomer of this rank."""
        priority, is_flex, place, arrival = rank
        least = (priority, is_flex, place + _PREEMPTION_MARGIN, arrival)
        return sum(work.rank[0] != priority or work.rank <= least for work in self._running)

    def _read_before(self, prompt: float) -> float:
        """Tokens of the running sequences' prompts that are computed before one of so many tokens is."""
        num_shorter = bisect_left(self._prompts, prompt)
        most = _SHORT_SHARE * (self._prompt_sums[num_shorter] + prompt) - prompt
        return min(self._prompt_sums[-1], most)

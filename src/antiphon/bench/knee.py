"""Finds the knee: the heaviest load that a server carries while it keeps its objectives.

The load (users, or requests per second in steps) is doubled until it is too much, then bisected between the heaviest
that was kept and the lightest that was not. Measurements are noisy, and one lucky or unlucky stage must not send the
search into the wrong half. So each load is tried until two stages agree, three stages at most, and a load counts as
kept if at least two of three stages met every objective. The load that is found is then tried again, until five of its
stages have been measured; if fewer than four of the five were good, the search goes on below it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from math import comb

import msgspec

_AGREE, _CONFIRM, _CONFIRMED = 2, 5, 4
_LEVEL = 0.05
RATE_STEPS = 32  # a search by rate is in steps of the highest rate divided by this

RunStage = Callable[[int, int], Awaitable[bool]]
"""Runs a stage with a load, which is its repetition of this number (from 0). Whether it met every objective."""


class Trial(msgspec.Struct, frozen=True):
    """All stages of one load."""

    load: int
    met: int
    stages: int

    @property
    def share_at_least(self) -> float:
        """The share of stages that meet the objectives, at least, with 95 % confidence (Clopper and Pearson, 1934)."""
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            too_low = _at_least(self.met, self.stages, middle) < _LEVEL
            low, high = (middle, high) if too_low else (low, middle)
        return low


class Knee(msgspec.Struct, frozen=True):
    """The heaviest load that keeps the objectives, and what it is known from."""

    load: int | None  # None: not even the lightest
    too_much: int | None  # the lightest load above it that does not; None: the heaviest that was allowed was kept
    trials: list[Trial]  # in the order of their loads
    step: float | None = None  # of a load, in requests per second; None: loads are users

    def named(self, load: int) -> str:
        """A load in words."""
        if self.step is not None:
            return f"{load * self.step:g} requests/s"
        return "1 user" if load == 1 else f"{load} users"

    @property
    def sentence(self) -> str:
        """The result in words."""
        if self.load is None:
            lightest = f" with {self.named(self.trials[0].load)}" if self.trials else ""
            return f"The objectives are not kept, not even{lightest}." if lightest else "No load was tried."
        trial = next(each for each in self.trials if each.load == self.load)
        known = f"{trial.met} of {trial.stages} stages, so at least {trial.share_at_least * 100:.0f} % of such stages"
        beyond = "More was not tried." if self.too_much is None else f"With {self.named(self.too_much)} they are not."
        return f"The objectives are kept up to {self.named(self.load)} ({known}, with 95 % confidence). {beyond}"


async def find_knee(run_stage: RunStage, *, first: int = 1, most: int = 1024, resolution: float = 0.0) -> Knee:
    """Search for the knee.

    Args:
        run_stage: measures a load.
        first: the load to begin with.
        most: the heaviest load that is tried.
        resolution: the search ends when the knee is known to this share of it, or to 1.
    """
    trials = _Trials(run_stage)
    good, bad = 0, most + 1
    load = min(first, most)
    while True:
        while bad - good > max(1, good * resolution):
            if await trials.is_kept(load):
                good = load
            else:
                bad = load
            load = _next(good, bad, most)
        if good == 0 or await trials.is_confirmed(good):
            return Knee(good or None, bad if bad <= most else None, trials.all())
        good, bad = trials.heaviest_kept(below=good), good
        load = _next(good, bad, most)


def knee_of(stages: Iterable[tuple[int, bool]], step: float | None = None) -> Knee:
    """The knee among stages that were measured, judged as the search does: (load, whether every objective was met)."""
    counts: dict[int, list[bool]] = {}
    for load, met in stages:
        counts.setdefault(load, []).append(met)
    trials = [Trial(load, sum(found), len(found)) for load, found in sorted(counts.items())]
    kept: int | None = None
    for trial in trials:
        if not _is_kept(trial):
            return Knee(kept, trial.load, trials, step)
        kept = trial.load
    return Knee(kept, None, trials, step)


def _is_kept(trial: Trial) -> bool:
    """Two of three, or four of five."""
    if trial.stages >= _CONFIRM:
        return trial.met * _CONFIRM >= trial.stages * _CONFIRMED
    return trial.met * 3 >= trial.stages * 2


def _next(good: int, bad: int, most: int) -> int:
    """Twice the load while none was too much, then the middle."""
    return min(2 * good, most) if bad > most and good else (good + bad) // 2


def _at_least(met: int, stages: int, share: float) -> float:
    """The probability of `met` or more good stages, if each is good with a probability of `share`."""
    return sum(comb(stages, each) * share**each * (1 - share) ** (stages - each) for each in range(met, stages + 1))


class _Trials:
    """Counts of good stages by load."""

    def __init__(self, run_stage: RunStage) -> None:
        self._run_stage = run_stage
        self._found: dict[int, list[bool]] = {}

    def all(self) -> list[Trial]:
        return [Trial(load, sum(found), len(found)) for load, found in sorted(self._found.items())]

    async def is_kept(self, load: int) -> bool:
        found = self._found.setdefault(load, [])
        while max(found.count(True), found.count(False)) < _AGREE:
            found.append(await self._run_stage(load, len(found)))
        return found.count(True) >= _AGREE

    async def is_confirmed(self, load: int) -> bool:
        found = self._found[load]
        while len(found) < _CONFIRM and found.count(False) <= _CONFIRM - _CONFIRMED:
            found.append(await self._run_stage(load, len(found)))
        return found.count(False) <= _CONFIRM - _CONFIRMED

    def heaviest_kept(self, below: int) -> int:
        kept = [load for load, found in self._found.items() if load < below and found.count(True) >= _AGREE]
        return max(kept, default=0)

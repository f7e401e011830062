"""Chooses the level of degradation: signals of load in, a level out.

Pure: it knows no clock, requests or messages; times are passed in, in seconds. Its promises:

- The level rises by one at a time, and only while the conditions of a higher step hold (`degrade_rules`).
- Two changes are at least `stay` seconds apart, so each level has time to show its effect.
- The level falls once the signals have been calm for `stay` seconds, calm being clearly below the threshold.
- While all requests are refused, the signals cannot show whether requests would be served again. So before that level
  is left, one request is let through. If it gets its first token, the level falls; if it misses its deadline or fails,
  all are refused for longer than before. If no request comes, the level falls without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from antiphon.degrade_rules import DegradeRules, Limits, Shed, Signal

_RISE_AFTER = 0.1  # of the stay: how long a condition must hold before the level rises
_MOST_PATIENCE = 8  # times the stay, after probes that failed
_PROBE_STAYS = 6  # a probe that has shown nothing after so many stays is forgotten


class Ladder:
    """The level, from 0 (normal) to the number of steps."""

    def __init__(self, rules: DegradeRules, stay: float) -> None:
        """`stay`: seconds that a level lasts at least."""
        self._rules = rules
        self._stay = stay
        self.level = 0
        self._changed_at = -inf
        self._rising_since: float | None = None
        self._calm_since: float | None = None
        self._patience = 1  # times the stay: how long calm must last before a level is left
        self._half_open_at: float | None = None  # since when a probe is allowed
        self._probe_at: float | None = None  # when the running probe began

    @property
    def limits(self) -> Limits:
        """What applies to new requests now."""
        return self._rules.limits(self.level)

    @property
    def allows_probe(self) -> bool:
        """Whether one request is let through although all are refused."""
        return self._half_open_at is not None and self._probe_at is None

    @property
    def probe_level(self) -> int:
        """The level whose limits apply to a probe."""
        return max(0, self.level - 1)

    def observe(self, now: float, signals: Mapping[Signal, float]) -> int:
        """Take the signals at a moment; returns the level from now on."""
        steps = self._rules.steps
        wanted = max((number for number, step in enumerate(steps, start=1) if step.holds(signals)), default=0)
        kept = max((number for number, step in enumerate(steps, start=1) if not step.is_over(signals)), default=0)
        self._rising_since = self._since(self._rising_since, now) if wanted > self.level else None
        self._calm_since = self._since(self._calm_since, now) if kept < self.level else None
        if self._calm_since is None:
            self._half_open_at = None
        if self._rising_since is not None and self._may_rise(now, self._rising_since):
            self._move(self.level + 1, now)
        elif self._calm_since is not None and now >= self._leaves_at(self._calm_since):
            self._relax(now)
        return self.level

    def take_probe(self, now: float) -> bool:
        """Let one request through; whether it may."""
        if not self.allows_probe:
            return False
        self._probe_at = now
        return True

    def end_probe(self, now: float, *, is_good: bool | None) -> None:
        """A probe's result; None: it showed nothing, as when its client left."""
        if self._probe_at is None:
            return
        self._probe_at = None
        if is_good is None or self._half_open_at is None:
            return
        self._half_open_at = None
        if is_good:
            self._move(self.level - 1, now)
        else:
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
            self._calm_since, self._changed_at = None, now

    def retry_after(self, now: float) -> float:
        """Seconds until the level can be lower, if the load falls now."""
        since = now if self._calm_since is None else self._calm_since
        return max(0.0, self._leaves_at(since) - now)

    def _may_rise(self, now: float, since: float) -> bool:
        return now - since >= _RISE_AFTER * self._stay and now - self._changed_at >= self._stay

    def _leaves_at(self, calm_since: float) -> float:
        return max(calm_since, self._changed_at) + self._patience * self._stay

    def _relax(self, now: float) -> None:
        """Leave the level, or first let a probe through."""
        if self.limits.shed is not Shed.ALL:
            self._move(self.level - 1, now)
        elif self._half_open_at is None:
            self._half_open_at, self._probe_at = now, None
        elif self._probe_at is None:
            if now - self._half_open_at >= self._stay:
                self._move(self.level - 1, now)
        elif now - self._probe_at >= _PROBE_STAYS * self._stay:
            self._probe_at, self._half_open_at = None, now

    def _move(self, level: int, now: float) -> None:
        self.level, self._changed_at = level, now
        self._rising_since = self._calm_since = self._half_open_at = self._probe_at = None
        self._patience = self._patience if self.limits.shed is Shed.ALL else 1

    @staticmethod
    def _since(before: float | None, now: float) -> float:
        return now if before is None else before

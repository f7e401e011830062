"""Decides how many engines there should be: the load goes in, a number comes out.

Pure: it knows no clock, engines or requests; times are passed in, in seconds. The load is measured as time, not as
a number of requests: how long a new request would wait behind all work that was accepted, as the forecast predicts it
from the tokens owed and the measured cost of steps. Its promises:

- The number is within the bounds of the rules.
- It grows only after the wait was above the target for `upscale_delay`, and to at most twice the engines that are
  ready. Engines that still load count as present, so waiting for them does not ask for more.
- It shrinks by one, only after one engine less would have been enough for `downscale_delay`: nobody waits, and what
  runs fits into `_LOW_USE` of the remaining places. After that change the same load cannot make it grow, since growth
  needs a wait.
- While engines load, or none is ready, the number does not change, unless it is out of bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.fleet.launching import HERE
from antiphon.errors import ConfigError

_LOW_USE = 0.6  # of the places of the engines that remain


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """How many engines there are at one address, and when their number changes. Times are in seconds."""

    address: str  # as in `--engines`
    minimum: int
    maximum: int
    target_wait: float  # that a new request may wait before an engine begins with it
    upscale_delay: float  # for which the wait must be longer before engines are added
    downscale_delay: float  # for which fewer engines must be enough before one is removed


def scaling_rules(engine: EngineConfig, server: ServerConfig) -> ScalingRules | None:
    """The rules that the settings ask for; None: the number of engines does not change.

    Engines are added at the last address of `--engines`, unless it is a GPU, which has one engine. There are never
    fewer than the settings ask for.
    """
    places = _places(engine)
    if not server.max_engines or _adds_on_gpu(engine):
        return None
    minimum = places.count(places[-1])
    return ScalingRules(
        places[-1],
        minimum,
        max(minimum, server.max_engines - len(places) + minimum),
        server.autoscale_target_wait,
        server.upscale_delay,
        server.downscale_delay,
    )


def check_scaling(engine: EngineConfig, server: ServerConfig) -> None:
    """Raises ConfigError if fewer engines are allowed than are asked for, or none can be added."""
    places = _places(engine)
    if 0 < server.max_engines < len(places):
        raise ConfigError(
            f"--max-engines is {server.max_engines}, and --engines asks for {len(places)}; it must be at least as many"
        )
    if server.max_engines and _adds_on_gpu(engine):
        raise ConfigError(
            "--max-engines: a GPU has one engine, so none can be added there; put the device that engines may be added "
            "on last, as in --engines cuda,cpu"
        )


def _adds_on_gpu(engine: EngineConfig) -> bool:
    """Whether engines would be added on a GPU, which can have only one."""
    return (_places(engine)[-1] or engine.device).startswith("cuda")


def _places(engine: EngineConfig) -> list[str]:
    return [each or HERE for each in engine.local_devices] + list(engine.remote_engines)


@dataclass(frozen=True, slots=True)
class Demand:
    """What the engines have to do at a moment."""

    wait: float  # seconds until an engine would begin with a new request that comes after all others
    sequences: int  # running and waiting
    places: int  # sequences that one engine runs at the same time


class Autoscaling:
    """The number of engines that should run."""

    def __init__(self, rules: ScalingRules) -> None:
        """`rules` may be replaced at any time."""
        self.rules = rules
        self.wanted = rules.minimum
        self._ready = 0  # engines that were ready at the last observation
        self._busy_since: float | None = None
        self._calm_since: float | None = None

    def observe(self, now: float, demand: Demand, present: int, ready: int) -> int:
        """Take the load at a moment; returns the number of engines that should run from now on.

        `present`: engines that were started and not removed; `ready`: those of them that take requests.
        """
        rules = self.rules
        if ready != self._ready:  # what was observed before says nothing about this many
            self._ready, self._busy_since, self._calm_since = ready, None, None
        self.wanted = max(rules.minimum, min(rules.maximum, present))
        if self.wanted != present or ready < present or not ready:
            self._busy_since = self._calm_since = None
            return self.wanted
        self._busy_since = _since(self._busy_since, now) if demand.wait > rules.target_wait else None
        self._calm_since = _since(self._calm_since, now) if self._is_calm(demand, ready) else None
        if self._busy_since is not None and now - self._busy_since >= rules.upscale_delay:
            enough = ceil(ready * demand.wait / rules.target_wait)
            self.wanted = min(rules.maximum, 2 * ready, enough)
            self._busy_since = None
        elif self._calm_since is not None and now - self._calm_since >= rules.downscale_delay:
            self.wanted = max(rules.minimum, ready - 1)
            self._calm_since = None
        return self.wanted

    @staticmethod
    def _is_calm(demand: Demand, ready: int) -> bool:
        """Whether one engine less would be enough."""
        return demand.wait <= 0 and demand.sequences <= _LOW_USE * demand.places * (ready - 1)


def _since(before: float | None, now: float) -> float:
    return now if before is None else before

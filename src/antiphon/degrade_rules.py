"""The rules of `--degrade`: which limits apply to new requests at which level of load. A leaf.

Owns the syntax, its checks and the default. A ladder is a list of steps. Level 0 is normal operation; at level `n` the
first `n` steps apply, and where several set the same limit, the last one counts.

    ladder     = "off" | step *(";" step)
    step       = [condition *("," condition) ":"] setting *("," setting)
    condition  = signal (">" | ">=") number ["%"]
    setting    = name "=" value

A step's conditions are alternatives: one that holds is enough. A step without conditions has `DEFAULT_CONDITIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from antiphon.errors import ConfigError

FLAG = "--degrade"
OFF = "off"
RELAXED = 75 / 90  # a condition is over when its signal is at most this share of the threshold
DEFAULT_CONDITIONS = "wait>90%,kv>90%,memory_reserve>90%,timeouts>=3,engine_deaths>=2"
DEFAULT_LADDER = "thinking_budget=1024; thinking_budget=512,max_tokens=1024; shed=flex; shed=all"
MAX_STEPS = 16

_CONDITION = re.compile(r"(\w+)\s*(>=|>)\s*(\d{1,9}(?:\.\d{1,9})?)\s*(%?)")
_EXAMPLE = "write it like 'thinking_budget=1024; max_tokens=1024; shed=all', or 'memory>90%: max_tokens=512'"


class Signal(StrEnum):
    """A measure of load."""

    WAIT = "wait"  # predicted wait for the first token, as a share of what clients accept
    KV = "kv"  # share of the KV cache that unfinished requests use
    MEMORY = "memory"  # share of the memory that may be used, by the machine or the control group
    MEMORY_RESERVE = "memory_reserve"  # the same, of the part that model and KV cache leave free
    TIMEOUTS = "timeouts"  # requests in a row that missed their deadline
    ENGINE_DEATHS = "engine_deaths"  # within the last minute


COUNTS = (Signal.TIMEOUTS, Signal.ENGINE_DEATHS)  # the other signals are shares


class Shed(StrEnum):
    """Which new requests are refused."""

    NONE = "none"
    FLEX = "flex"  # those with service_tier "flex"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Limits:
    """What applies to new requests; None: no limit beyond the request's own."""

    thinking_budget: int | None = None  # tokens of the thought, for requests that name no budget
    max_tokens: int | None = None  # tokens of thought and answer together
    temperature: float | None = None  # the highest
    shed: Shed = Shed.NONE

    def then(self, later: Limits) -> Limits:
        """These limits, with those that a later step sets."""
        changes: dict[str, Any] = {
            name: value
            for name in ("thinking_budget", "max_tokens", "temperature")
            if (value := getattr(later, name)) is not None
        }
        if later.shed is not Shed.NONE:
            changes["shed"] = later.shed
        return replace(self, **changes)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Condition:
    """A threshold of one signal."""

    signal: Signal
    threshold: float  # a share (0.9) or a count (3)
    is_strict: bool = False  # holds above the threshold only, not at it

    def holds(self, signals: Mapping[Signal, float]) -> bool:
        """Whether the signal has reached the threshold. A signal that was not measured is 0."""
        value = signals.get(self.signal, 0.0)
        return value > self.threshold if self.is_strict else value >= self.threshold

    def is_over(self, signals: Mapping[Signal, float]) -> bool:
        """Whether the signal is far enough below the threshold for its step to be left."""
        return signals.get(self.signal, 0.0) <= RELAXED * self.threshold


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the ladder."""

    limits: Limits
    conditions: tuple[Condition, ...]

    def holds(self, signals: Mapping[Signal, float]) -> bool:
        """Whether a condition holds."""
        return any(condition.holds(signals) for condition in self.conditions)

    def is_over(self, signals: Mapping[Signal, float]) -> bool:
        """Whether all conditions are over."""
        return all(condition.is_over(signals) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class DegradeRules:
    """A whole ladder."""

    steps: tuple[Step, ...] = ()
    text: str = field(default=OFF, compare=False)  # as they were written
    _limits: tuple[Limits, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limits = [NO_LIMITS]
        for step in self.steps:
            limits.append(limits[-1].then(step.limits))
        object.__setattr__(self, "_limits", tuple(limits))

    def __str__(self) -> str:
        return self.text

    def limits(self, level: int) -> Limits:
        """The limits at a level, from 0 to the number of steps."""
        return self._limits[level]

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals that a condition uses."""
        return frozenset(condition.signal for step in self.steps for condition in step.conditions)


def parse_rules(text: str) -> DegradeRules:
    """The rules written as `text`.

    Raises:
        ConfigError: it is not a valid ladder; the message quotes the part that is wrong.
    """
    if text.strip().lower() in (OFF, "false", "0"):
        return DegradeRules()
    parts = [part.strip() for part in text.split(";")]
    if not all(parts):
        raise ConfigError(f"{FLAG} has an empty step; {_EXAMPLE}, or '{OFF}'")
    if len(parts) > MAX_STEPS:
        raise ConfigError(f"{FLAG} has {len(parts)} steps; it may have at most {MAX_STEPS}")
    rules = DegradeRules(tuple(map(_step, parts)), text)
    _check_order(rules)
    return rules


def _step(text: str) -> Step:
    conditions, colon, settings = text.rpartition(":")
    if colon and not conditions.strip():
        raise ConfigError(f"{FLAG}: there is no condition before the colon in {_quoted(text)}; {_EXAMPLE}")
    named = conditions if colon else DEFAULT_CONDITIONS
    return Step(_limits(settings, text), tuple(_condition(part.strip()) for part in named.split(",")))


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(f"{FLAG}: {_quoted(text)} is not a condition; a condition is like wait>90% or timeouts>=3")
    name, comparison, number, percent = match.groups()
    if name not in list(Signal):
        raise ConfigError(f"{FLAG}: there is no signal {_quoted(name)}; {_nearest(name, list(Signal))}")
    signal, value = Signal(name), float(number)
    is_count = signal in COUNTS
    if is_count and (percent or not value.is_integer() or value < 1):
        raise ConfigError(f"{FLAG}: {_quoted(text)}: {name} is a number of events, so write {name}>=3")
    if not is_count and (not percent or not 0 < value <= 1000):
        raise ConfigError(f"{FLAG}: {_quoted(text)}: {name} is a share, so write {name}>90%")
    return Condition(signal, value if is_count else value / 100, is_strict=comparison == ">")


def _limits(text: str, step: str) -> Limits:
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals:
            raise ConfigError(f"{FLAG}: {_quoted(part.strip() or step)} is not a setting; {_EXAMPLE}")
        own = _ALIASES.get(name, name)
        if own not in _READERS:
            raise ConfigError(f"{FLAG}: there is no setting {_quoted(name)}; {_nearest(name, list(_READERS))}")
        if own in found:
            raise ConfigError(f"{FLAG}: {own} is set twice in {_quoted(step)}; keep one of them")
        found[own] = _READERS[own](own, value)
    return Limits(**found)


def _tokens(name: str, text: str) -> int:
    least = 0 if name == "thinking_budget" else 1
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least):
        raise ConfigError(f"{FLAG}: {name} is {_quoted(text)}; it must be a whole number of tokens, at least {least}")
    return int(text)


def _temperature(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise ConfigError(f"{FLAG}: {name} is {_quoted(text)}; it must be a number from 0 to 2")
    return value


def _shed(name: str, text: str) -> Shed:
    if text not in (Shed.FLEX, Shed.ALL):
        raise ConfigError(f"{FLAG}: {name} is {_quoted(text)}; choose one of {Shed.FLEX}, {Shed.ALL}")
    return Shed(text)


_READERS = {"thinking_budget": _tokens, "max_tokens": _tokens, "temperature": _temperature, "shed": _shed}
_ALIASES = {"thinking_token_budget": "thinking_budget", "max_thinking_tokens": "thinking_budget"}


def _check_order(rules: DegradeRules) -> None:
    """Raise ConfigError if a step allows more than one before it, or never has an effect."""
    for number, step in enumerate(rules.steps, start=1):
        before = rules.limits(number - 1)
        for name in ("thinking_budget", "max_tokens", "temperature"):
            lowest, value = getattr(before, name), getattr(step.limits, name)
            if None not in (lowest, value) and value > lowest:
                raise ConfigError(
                    f"{FLAG}: step {number} has {name}={value:g}, more than the {lowest:g} of an earlier step"
                )
        if before.shed is Shed.ALL:
            raise ConfigError(f"{FLAG}: step {number} has no effect, since the step before it refuses all requests")


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def _quoted(text: str) -> str:
    return repr(text[:80])


DEFAULT_RULES = parse_rules(DEFAULT_LADDER)

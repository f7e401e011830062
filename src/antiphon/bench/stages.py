"""The stages of a load test: each is one load for some time, made from the options of the command line.

Owns their syntax and their labels. How a stage is run is in `load.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from antiphon.errors import ConfigError

DEFAULT_SECONDS = 30.0
MAX_USERS = 10_000


@dataclass(frozen=True)
class Stage:
    """One load. It ends after `requests` or after `seconds`, whichever comes first; 0 is no limit."""

    number: int
    shape: Literal["users", "ramp", "rate"]
    users: int = 0  # for `users`, and the largest number of a ramp
    first_users: int = 0  # of a ramp
    rate: float = 0.0  # requests per second
    ramp_seconds: float = 0.0
    hold_seconds: float = 0.0
    requests: int = 0
    seconds: float = 0.0
    warm_up: float = 0.0  # seconds at the beginning that are left out of the figures
    round: int = 0

    @property
    def label(self) -> str:
        """Its name in reports."""
        if self.shape == "rate":
            return f"{self.rate:g} requests/s"
        if self.shape == "ramp":
            return f"{self.first_users} → {self.users} users"
        return f"{self.users} user{'s' * (self.users != 1)}"

    @property
    def planned_seconds(self) -> float:
        """How long requests are sent, at most; 0 if only their number is limited."""
        return self.ramp_seconds + self.hold_seconds if self.shape == "ramp" else self.seconds


def stages(
    *,
    users: str | None = None,
    ramp: str | None = None,
    rate: str | None = None,
    ramp_seconds: float = 60.0,
    hold_seconds: float = 120.0,
    requests: int = 0,
    seconds: float = 0.0,
    warm_up: float = 0.0,
    rounds: int = 1,
) -> list[Stage]:
    """The stages that the options ask for; without any, one user.

    `users`: `8`, `1,2,4`, or with an ellipsis that continues what is before it: `1,2,4,…,16`, `2,4,...,20`. `rate`: the
    same with requests per second. `ramp`: `1..20`.

    Raises:
        ConfigError: a value is not valid, or options do not go together; it names the option.
    """
    given = [name for name, value in (("--users", users), ("--ramp", ramp), ("--rate", rate)) if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} cannot be combined; give one of them")
    seconds = seconds if seconds or requests else DEFAULT_SECONDS
    limits = Stage(0, "users", requests=requests, seconds=seconds, warm_up=warm_up)
    if ramp:
        first, last = _ramp(ramp)
        one = replace(limits, shape="ramp", first_users=first, users=last, seconds=0.0)
        shapes = [replace(one, ramp_seconds=ramp_seconds, hold_seconds=hold_seconds)]
    elif rate:
        shapes = [replace(limits, shape="rate", rate=each) for each in _series("--rate", rate)]
    else:
        numbers = _series("--users", users or "1")
        if any(each != int(each) or each > MAX_USERS for each in numbers):
            raise ConfigError(f"--users is {users!r}; it must be a whole number up to {MAX_USERS:,}")
        shapes = [replace(limits, users=int(each)) for each in numbers]
    if warm_up and warm_up >= shapes[0].planned_seconds > 0:
        raise ConfigError(
            f"--warm-up is {warm_up:g} s, but a stage takes only {shapes[0].planned_seconds:g} s; make it shorter"
        )
    every = [(number, each) for number in range(rounds) for each in shapes]
    return [replace(each, number=at, round=number) for at, (number, each) in enumerate(every)]


def _ramp(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\s*(?:\.\.|…|-)\s*(\d+)", text.strip())
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first < last <= MAX_USERS:
        raise ConfigError(f"--ramp is {text!r}; it must be the first and the last number of users, as 1..20")
    return first, last


def _series(option: str, text: str) -> list[float]:
    """Numbers parted by commas; an ellipsis continues those before it."""
    words = [word.strip() for word in text.replace("…", "...").split(",")]
    numbers: list[float] = []
    try:
        for at, word in enumerate(words):
            if word == "...":
                numbers += _between(numbers, float(words[at + 1]))
            else:
                numbers.append(float(word))
    except (ValueError, IndexError, ZeroDivisionError):
        numbers = []
    if not numbers or not all(0 < each < float("inf") for each in numbers):
        raise ConfigError(f"{option} is {text!r}; it must be a number above 0, or several, as 1,2,4 or 1,2,4,...,16")
    return numbers


def _between(before: list[float], last: float) -> list[float]:
    """The numbers after those before the ellipsis and below `last`: doubled after 1,2,4, in equal steps after 2,4,6."""
    first, second = before[-2:]
    factor, step = second / first, second - first
    is_geometric = len(before) > 2 and first / before[-3] == factor and first - before[-3] != step
    if not first < second < last or (last - second) / step > MAX_USERS:
        raise ValueError
    found: list[float] = []
    value = second
    while (value := value * factor if is_geometric else value + step) < last:
        found.append(value)
    return found

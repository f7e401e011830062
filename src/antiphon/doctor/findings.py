"""What a check reports: findings, each with what was found, why it matters, and the command that fixes it.

Owns the rule that a finding which is not `ok` always says why it matters and how to fix it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a finding is, best first."""

    OK = "ok"
    NOTE = "note"  # good to know
    WARNING = "warning"  # works, but slower or less safely than it could
    PROBLEM = "problem"  # does not work, or is refused


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check."""

    level: Level
    what: str
    why: str = ""
    fix: str = ""  # a command to type, or what to change where there is no command

    def __post_init__(self) -> None:
        assert self.what, "a finding says what was found"
        assert self.level is Level.OK or (self.why and self.fix), f"no reason or no remedy: {self.what}"


def ok(what: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Level.OK, what)


def note(what: str, *, why: str, fix: str) -> Finding:
    """Something that is good to know."""
    return Finding(Level.NOTE, what, why, fix)


def warning(what: str, *, why: str, fix: str) -> Finding:
    """Something that makes the server slower or less safe."""
    return Finding(Level.WARNING, what, why, fix)


def problem(what: str, *, why: str, fix: str) -> Finding:
    """Something that keeps the server from working."""
    return Finding(Level.PROBLEM, what, why, fix)


@dataclass(frozen=True, slots=True)
class Result:
    """A finding, and the check that it comes from."""

    subject: str  # "memory"
    check: str  # "swap"
    finding: Finding

    def as_json(self) -> dict[str, Any]:
        """Plain data, as `antiphon doctor --json` prints it."""
        finding = self.finding
        return {
            "subject": self.subject,
            "check": self.check,
            "level": finding.level.value,
            "what": finding.what,
            "why": finding.why,
            "fix": finding.fix,
        }


def count_levels(results: Iterable[Result]) -> dict[str, int]:
    """Level → number of findings, every level included."""
    counts = dict.fromkeys((level.value for level in Level), 0)
    for result in results:
        counts[result.finding.level.value] += 1
    return counts

"""Runs checks one after the other, each on its own: one that raises or hangs becomes a finding.

Owns the time a check may take. It knows nothing about what is checked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from antiphon.doctor.findings import Finding, Result, warning
from antiphon.errors import AntiphonError

CHECK_SECONDS = 20.0  # the longest that a check may take; most need milliseconds


@dataclass(frozen=True, slots=True)
class Check:
    """A named check. `run` returns its findings; it may raise or hang."""

    subject: str
    name: str
    run: Callable[[], Iterable[Finding]]
    seconds: float = CHECK_SECONDS  # that it may take


def examine(checks: Iterable[Check]) -> Iterator[Result]:
    """The results of all checks, in order. Raises nothing that a check raises."""
    for check in checks:
        for finding in _findings(check):
            yield Result(check.subject, check.name, finding)


def _findings(check: Check) -> list[Finding]:
    found: list[Finding] = []
    thread = threading.Thread(target=_run, args=(check, found), daemon=True, name=f"doctor {check.name}")
    thread.start()
    thread.join(check.seconds)
    if thread.is_alive():
        return [*found, _unfinished(check)]
    return found


def _run(check: Check, found: list[Finding]) -> None:
    try:
        for finding in check.run():
            found.append(finding)
    except Exception as error:  # whatever it is, the other checks run and the user sees it
        found.append(_failed(check, error))


def _failed(check: Check, error: Exception) -> Finding:
    reason = error.message if isinstance(error, AntiphonError) else f"{type(error).__name__}: {error}"
    return warning(
        f'the check "{check.name}" failed ({reason})',
        why="It says nothing about its subject, which may be well or not. The other checks are not affected.",
        fix="antiphon doctor --json > doctor.json  # and report it, with this file",
    )


def _unfinished(check: Check) -> Finding:
    return warning(
        f'the check "{check.name}" did not finish within {check.seconds:g} s',
        why="What it looks at does not answer: often a network file system, or a machine without free processor time.",
        fix="cat /proc/pressure/io /proc/loadavg; dmesg | tail  # shows what the machine waits for",
    )

"""Checks of the software: Python, the C library, the native library, packages, and variables of the environment."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, requires, version

from antiphon.doctor.findings import Finding, note, ok, problem, warning

_OLDEST_PYTHON = (3, 11)
_PREFIX = "ANTIPHON_"


def python() -> Iterator[Finding]:
    """The interpreter and the C library."""
    release = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        yield problem(
            f"Python {release}",
            why=f"Antiphon needs {'.'.join(map(str, _OLDEST_PYTHON))} or later.",
            fix="python3.12 -m venv .venv && .venv/bin/pip install antiphon",
        )
    else:
        yield ok(f"Python {release}, {' '.join(platform.libc_ver()) or 'unknown C library'}, {platform.machine()}")
    if sys.flags.dev_mode:
        yield note(
            "Python runs in development mode",
            why="Every allocation and every await is checked, which makes the server slower.",
            fix="unset PYTHONDEVMODE  # and leave out -X dev",
        )


def native_library() -> Iterator[Finding]:
    """Whether the compiled part can be loaded."""
    try:
        from antiphon.ops.native import instruction_sets
    except ImportError as error:
        yield problem(
            f"the compiled part of Antiphon cannot be loaded: {error}",
            why="Nothing can be computed without it. It was built for another Python, processor or C library.",
            fix="pip install --force-reinstall --no-cache-dir antiphon",
        )
    else:
        yield ok(f"the compiled part supports {', '.join(instruction_sets())} here")


def arithmetic() -> Iterator[Finding]:
    """Whether every kernel computes the bits that this version of Antiphon computes everywhere."""
    try:
        from antiphon.runtime.cpu import fingerprints
        from antiphon.runtime.fingerprint import EXPECTED
    except ImportError:
        return  # said by `native_library`
    found = fingerprints()
    wrong = [name for name, fingerprint in found.items() if fingerprint != EXPECTED]
    if not wrong:
        yield ok(f"{', '.join(found)} compute the same bits as on every x86-64 processor: fingerprint {EXPECTED}")
        return
    yield problem(
        f"{', '.join(f'{name} computes other bits ({found[name]})' for name in wrong)}; they should be {EXPECTED}",
        why="Answers differ from those of other machines, and an answer that moves between engines may change. The "
        "processor or an emulator computes wrongly, or the compiled part was built with other options.",
        fix="pip install --force-reinstall --no-cache-dir antiphon  # if it stays, test the memory and the processor",
    )


def packages() -> Iterator[Finding]:
    """Whether the packages that Antiphon needs are there and new enough."""
    try:
        from packaging.requirements import Requirement

        needed = [Requirement(line) for line in requires("antiphon") or ()]
    except (ImportError, PackageNotFoundError):
        yield ok("Antiphon runs from its sources, so the versions of its packages are not compared")
        return
    wrong = [
        f"{each.name} is {found or 'missing'}, needs {each.specifier}"
        for each in needed
        if (each.marker is None or each.marker.evaluate({"extra": ""}))
        and ((found := _version(each.name)) is None or found not in each.specifier)
    ]
    if wrong:
        yield problem(
            "; ".join(wrong),
            why="Another program's installation has probably replaced them. Antiphon may fail in strange ways.",
            fix="pip install --upgrade antiphon  # best into an environment of its own",
        )
    else:
        yield ok(f"Antiphon {version('antiphon')} and the packages it needs")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def variables(environment: Mapping[str, str], known: Collection[str]) -> Iterator[Finding]:
    """Variables that look like settings but are not; `known`: the names of all settings."""
    unknown = sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)
    for name in unknown:
        near = get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        yield warning(
            f"the environment variable {name} is not a setting of Antiphon",
            why=f"It has no effect.{meant}",
            fix=f"unset {name}" + (f"; export {near[0]}=…" if near else "  # antiphon serve --help lists the settings"),
        )
    if not unknown:
        count = sum(name.startswith(_PREFIX) for name in environment)
        yield ok(f"{count} settings come from the environment" if count else "no setting comes from the environment")

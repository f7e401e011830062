"""What a run records about itself: the client's machine, and the command that was typed, without keys."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from antiphon.machine import see_processors

_SECRET = re.compile(r"--(header|([\w-]+-)?(key|token|password|secret))")
_SHORT_HEADER = re.compile(r"(-[hk]*H)=?(.*)", re.DOTALL)  # -H, its value attached or not, perhaps after other switches


def machine() -> dict[str, str]:
    """This machine, on which the client runs."""
    model = "unknown"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": str(see_processors().num_cores),
        "memory": f"{memory:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command line with `***` instead of keys and headers, also in commands that are words of it."""
    return ["antiphon", *_all_masked(words)[1:]]


def command_without_secrets(command: str) -> str:
    """A command, as it is typed for a shell, with `***` instead of keys and headers."""
    try:
        return shlex.join(_all_masked(shlex.split(command))).replace("'{port}'", "{port}").replace("'***'", "***")
    except ValueError:  # quotes that do not match: it will not start
        return "***"


def _all_masked(words: Sequence[str]) -> list[str]:
    shown, hides = [], False
    for word in words:
        text, hides = ("***", False) if hides else _masked(word)
        shown.append(text)
    return shown


def _masked(word: str) -> tuple[str, bool]:
    """A word without the secret in it, and whether the next word is one."""
    if " " in word and "{port}" in word:  # the command of a server that is started
        return command_without_secrets(word), False
    if found := _SHORT_HEADER.fullmatch(word):
        return (f"{found[1]}***", False) if found[2] else (word, True)
    name, equals, _ = word.partition("=")
    if not _SECRET.fullmatch(name):
        return word, False
    return (f"{name}=***", False) if equals else (word, True)

"""What a run says of itself: the machine of the client, and the command that was typed, without keys."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from antiphon.machine import see_processors

_SECRET = ("--api-key", "--header", "-H")


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
    """A command line without the keys in it."""
    shown, hides = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        is_secret = name in _SECRET
        shown.append("***" if hides else f"{name}=***" if is_secret and equals else word)
        hides = is_secret and not equals
    return ["antiphon", *shown[1:]]

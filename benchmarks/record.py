"""What every result says of itself: the machine, the commit, the command; written as JSON for report.py to show.

A result that nobody can place is worth nothing. Paths are cut to their last part, since those of one machine tell a
reader nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from antiphon.machine import see_processors

INTEGER_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx2")  # as the kernel names them, the widest first


def record(benchmark: str, figures: dict[str, Any], path: Path | None, model: str = "") -> None:
    """Write a result to `path`; without one, print it as the last line."""
    about = {
        "benchmark": benchmark,
        "machine": machine(),
        "commit": commit(),
        "command": shown(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
    }
    if model:
        about["model"] = Path(model).name
    text = json.dumps({**about, **figures})
    if path is None:
        print(text)
    else:
        path.write_text(text + "\n")


def machine() -> dict[str, Any]:
    fields = dict(re.findall(r"^(.+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text().split("\n\n")[0], re.MULTILINE))
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", "unknown"),
        "family": int(fields.get("cpu family", 0)),
        "model": int(fields.get("model", 0)),
        "cores": see_processors().num_cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "integer_dot_products": [flag for flag in INTEGER_FLAGS if flag in flags],
        "load": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit's short name, with a + when files differ from it."""
    root = Path(__file__).parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def shown(words: list[str]) -> str:
    """A command without the folders of this machine."""
    return shlex.join(re.sub(r"(?<![\w.])/(?:[^\s/'=]+/)+", "", word).replace("\n", " ") for word in words)

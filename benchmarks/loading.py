"""How long a model takes to be served, and what memory that takes, at its highest and when it is ready.

Starts `antiphon serve` with each of the given arguments in turn, several times over, and follows the memory of all its
processes from outside. Memory is PSS, so that pages which processes share count once; `private` is what cannot be taken
back, the rest is the checkpoint's own file, mapped.

    python benchmarks/loading.py "MODEL_FOLDER --quantization w4" "MODEL_FOLDER --quantization w8" MODEL.gguf
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a server's processes."""

    total: int = 0
    private: int = 0


@dataclass(frozen=True, slots=True)
class Loading:
    """One start."""

    seconds: float
    peak: Memory  # each figure's own highest
    ready: Memory


def memory_of(pid: int) -> Memory:
    """PSS of a process and of all below it."""
    total = private = 0
    pids = [pid]
    while pids:
        process = Path("/proc", str(pids.pop()))
        try:
            for task in (process / "task").iterdir():
                pids += map(int, (task / "children").read_text().split())
            rollup = dict(line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
        except OSError:
            continue  # it has just ended
        total += 1024 * int(rollup["Pss"].split()[0])
        private += 1024 * int(rollup["Pss_Anon"].split()[0])
    return Memory(total, private)


def load(arguments: list[str]) -> Loading:
    """Start a server, wait until it is ready, and stop it."""
    command = [sys.executable, "-m", "antiphon", "serve", *arguments, "--port", "0"]
    begun = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    samples: list[Memory] = []
    done = threading.Event()

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            samples.append(memory_of(server.pid))

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        if not server.stdout.readline().startswith("curl "):
            sys.exit(f"{shlex.join(command)} was not ready; run it by hand to see why")
        seconds = time.monotonic() - begun
        time.sleep(1.0)  # pages that are let go take a moment
        ready = memory_of(server.pid)
    finally:
        done.set()
        follower.join()
        server.terminate()
        server.wait(timeout=60)
    peak = Memory(max(sample.total for sample in samples), max(sample.private for sample in samples))
    return Loading(seconds, peak, ready)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("serve", nargs="+", help="what to give to `antiphon serve`, quoted")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    starts: dict[str, list[Loading]] = {text: [] for text in options.serve}
    for _ in range(options.repeats):  # in turn, so that a slow minute is everybody's
        for text, found in starts.items():
            found.append(load(shlex.split(text)))
    print("| served | ready after, s | peak, GiB | of it private | ready, GiB | of it private |")
    print("|---|---|---|---|---|---|")
    for text, found in starts.items():
        middle = [statistics.median(values) for values in zip(*map(_figures, found), strict=True)]
        print(f"| `{text}` | {middle[0]:.1f} | " + " | ".join(f"{value / GIB:.2f}" for value in middle[1:]) + " |")


def _figures(start: Loading) -> tuple[float, ...]:
    return start.seconds, start.peak.total, start.peak.private, start.ready.total, start.ready.private


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A server that is asked for several times as much as it can do: what its clients get, and what it costs.

    python benchmarks/overload.py --server 'antiphon=antiphon serve demo --port {port}' --json FILE [--seconds 120]
        [--factors 1,2,10] [--clients stock,naive]

First the best goodput without overload is measured, by rates that rise from what a few users get. Then requests arrive
at random (Poisson) at each of the factors times that rate, whatever the server answers: short ones, whose answer is
read whole, and long ones, which are streamed. An answer is *good* if it is complete and met its patience: a whole
answer arrived within it, a stream's first text did. *Goodput* is good answers a second.

*stock* clients are OpenAI's own, with their retries; their timeout is the patience, which they tell the server. *naive*
ones tell it too, but ignore `Retry-After` and try again after `--pause` seconds, up to `--tries` times. A client that
is out of patience leaves, and tries again likewise.

FILE is written after each run, and runs that it has already are left out, so that a benchmark that was stopped goes on.
The load comes from processes of their own (`overload_clients.py`), which share the machine with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from overload_clients import Load, Seen
from overload_report import figures, markdown
from record import record, shown
from servers import Server, busy_seconds
from soak import scrape

SAMPLED_EVERY = 2.0  # seconds
FOLDER = Path(__file__).parent
ENDS_WITHIN = 45.0  # seconds after the last arrival; then the clients leave


async def load(server: Server, wanted: Load, num_processes: int) -> list[Seen]:
    """Run clients in processes of their own; returns what they saw."""
    program = "import overload_clients; overload_clients.main()"
    parts = [wanted.part(number, num_processes) for number in range(num_processes)]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, json.dumps(asdict(part)), stdout=PIPE, cwd=FOLDER
        )
        for part in parts
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert not any(process.returncode for process in processes), "a client process failed"
    return [Seen.from_json(line) for output, _ in outputs for line in output.splitlines()]


class Watch:
    """The server's memory over time, and its processor time, while something runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.memory: list[tuple[float, int]] = []  # seconds, bytes
        self._since = time.monotonic()
        self._cpu = server.cpu_seconds()
        self._busy = busy_seconds()
        self._client = _children_seconds()

    async def sample(self) -> None:
        while True:
            self.memory.append((time.monotonic() - self._since, self.server.memory_bytes()))
            await asyncio.sleep(SAMPLED_EVERY)

    def cpu(self) -> dict[str, float]:
        """Cores used by the server's first process, its other processes, the clients, and anyone else."""
        wall = time.monotonic() - self._since
        assert self.server.process is not None
        used = {pid: now - self._cpu.get(pid, 0.0) for pid, now in self.server.cpu_seconds().items()}
        front = used.pop(self.server.process.pid)
        clients = _children_seconds() - self._client
        others = busy_seconds() - self._busy - front - sum(used.values()) - clients
        cores = {"front": front, "engine": sum(used.values()), "clients": clients, "others": max(0.0, others)}
        return {name: seconds / wall for name, seconds in cores.items()} | {"front_seconds": front, "wall": wall}


def _children_seconds() -> float:
    """Processor time of this process and of its children that have ended, but for servers, which go on."""
    import resource

    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


async def run(server: Server, wanted: Load, num_processes: int) -> dict[str, Any]:
    """One run: the load, with the server watched, and its accounts before and after."""
    before = await accounts(server)
    watch = Watch(server)
    sampling = asyncio.create_task(watch.sample())
    seen = await load(server, wanted, num_processes)
    cpu = watch.cpu()
    sampling.cancel()
    after = await accounts(server)
    counted = {name: after[name] - before[name] for name in after}
    row = figures(wanted, seen, watch.memory, cpu, counted)
    print(json.dumps({name: value for name, value in row.items() if name != "memory"}), file=sys.stderr)
    return row


async def accounts(server: Server) -> dict[str, float]:
    """The server's own counts, once nothing runs; none of a server that has no such metrics."""
    with suppress(Exception):  # another server: no /metrics, or no counts of ours in it
        for _ in range(300):
            now = await scrape(server.port)
            if not now["antiphon_requests_running"]:
                names = ("received", "refused", "accepted", "finished", "aborted", "failed")
                found = {name: now[f"antiphon_requests_{name}_total"] for name in names}
                return found | {"generated_tokens": now["antiphon_generated_tokens_total"]}
            await asyncio.sleep(0.2)
    return {}


class Results:
    """The file with what was measured so far."""

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = dict(about)
        self.rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path and path.exists() else []

    def find(self, server: str, clients: str, factor: float) -> dict[str, Any] | None:
        key = (server, clients, factor)
        return next((row for row in self.rows if (row["server"], row["clients"], row["factor"]) == key), None)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.path:
            record("overload", {**self.about, "rows": self.rows}, self.path)


def capacity(server: Server, wanted: Load, results: Results, arguments: argparse.Namespace) -> dict[str, Any]:
    """The row with the best goodput without overload, measured or found in the results."""
    known = results.find(server.name, "best", 1.0)
    if known:
        return known
    users = asyncio.run(run(server, wanted.with_users(arguments.users, arguments.ramp_seconds), arguments.processes))
    if not users["completed_per_second"]:
        sys.exit(f"{server.name}: no answer was complete within {arguments.ramp_seconds:g} s")
    rows: list[dict[str, Any]] = []
    for share in (float(each) for each in arguments.ramp.split(",")):
        rate = share * users["completed_per_second"]
        rows.append(asyncio.run(run(server, wanted.at(rate, arguments.ramp_seconds), arguments.processes)))
        if rows[-1]["goodput"] < 0.9 * max(row["goodput"] for row in rows):
            break
    best = max(rows, key=lambda row: float(row["goodput"]))
    ramp = [{"rate": row["rate"], "goodput": row["goodput"]} for row in rows]
    results.add({**best, "server": server.name, "clients": "best", "factor": 1.0, "ramp": ramp})
    return results.rows[-1]


def measure(server: Server, results: Results, arguments: argparse.Namespace) -> None:
    """All runs against one server that the results do not have."""
    clients, factors = arguments.clients.split(","), [float(each) for each in arguments.factors.split(",")]
    missing = [(kind, factor) for kind in clients for factor in factors if not results.find(server.name, kind, factor)]
    if not missing and results.find(server.name, "best", 1.0):
        return
    server.start(arguments.logs)
    wanted = Load(server.port, server.model, arguments.short, arguments.long, ends_within=ENDS_WITHIN)
    best = capacity(server, wanted, results, arguments)
    for kind, factor in missing:
        mine = wanted.at(factor * best["goodput"], arguments.seconds).by(kind, arguments.pause, arguments.tries)
        row = asyncio.run(run(server, mine, arguments.processes))
        share = row["goodput"] / best["goodput"]
        results.add({**row, "server": server.name, "clients": kind, "factor": factor, "of_best": share})


def sizes(text: str) -> tuple[int, int, float]:
    """WORDS+TOKENS/PATIENCE."""
    words, _, rest = text.partition("+")
    tokens, _, patience = rest.partition("/")
    return int(words), int(tokens), float(patience)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND", help="with {port} in it")
    parser.add_argument("--factors", default="1,2,10", help="times the best goodput")
    parser.add_argument("--clients", default="stock,naive", help="kinds of clients")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each run")
    parser.add_argument("--ramp-seconds", type=float, default=30.0, help="of each rate while the best is looked for")
    parser.add_argument("--ramp", default="0.7,0.85,1,1.15", help="those rates, times what users get")
    parser.add_argument("--users", type=int, default=16, help="who ask one after another, before that")
    parser.add_argument(
        "--short", type=sizes, default=(20, 64, 10.0), help="words of prompt + tokens of answer, at most / patience, s"
    )
    parser.add_argument("--long", type=sizes, default=(200, 256, 20.0), help="the same of long requests, one in five")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds before naive clients try again")
    parser.add_argument("--tries", type=int, default=10, help="of naive clients, at most")
    parser.add_argument("--processes", type=int, default=1, help="that the clients run in")
    parser.add_argument("--logs", type=Path, default=Path("."), help="folder for the servers' output")
    parser.add_argument("--json", type=Path, help="where to write the figures, and to go on from")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    arguments = parser.parse_args(words)
    servers = [Server(*text.split("=", 1)) for text in arguments.server]
    about = {"servers": {each.name: shown(each.command.split()) for each in servers}}
    results = Results(arguments.json, about | {"short": arguments.short, "long": arguments.long})
    for server in servers:
        try:
            measure(server, results, arguments)
        finally:
            server.stop()
    print(markdown(results.rows), file=sys.stderr)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(results.rows))


if __name__ == "__main__":
    main()

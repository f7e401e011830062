#!/usr/bin/env python3
"""A soak test: half an hour of mixed requests with killed engines and clients that leave; nothing may grow.

    python benchmarks/soak.py [MODEL] [--minutes 30] [--requests 100000] [--kill-every 90] [--json OUT] [--markdown OUT]

The server is the whole `antiphon serve` with the fake runner, so that one core is enough for 100,000 requests; MODEL
(the demo model) gives the tokenizer and the template. Requests arrive at random (Poisson) and use every API, streamed
and whole; some are refused for what is wrong with them, and some clients leave in the middle. During the
first two thirds the engine is killed (SIGKILL) at random times. During the last third one engine lives on, so that its
own growth shows.

Checked at the end, and the exit status is 1 if anything fails:

- *Same text*: a catalogue of requests is answered first while nothing else runs. Whenever one of them is answered
  later, under load and across killed engines, its text must be equal.
- *Nothing lost*: every request gets a complete answer, or the refusal that was expected. Only a request that two
  engines were working on when they were killed may end with the error that says so.
- *Accounts*: received = refused + accepted, and accepted = finished + aborted + failed, with nothing running and no
  KV block in use.
- *Flat*: a line through the medians of time bins may not rise by more than the tolerance over the measured time.
  Memory is PSS; descriptors are counted without the clients' connections. The front is measured from a fifth of the
  time on, the engine from the last kill on, both to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record import record
from servers import Server, read_lines
from soak_requests import BAD_REQUESTS, Request, random_request

from antiphon.bench.client import Reply, ask

NUM_KNOWN = 60  # requests of the catalogue
SHARE_KNOWN = 0.7  # of the requests that are answered
SHARE_BAD = 0.05
SHARE_LEAVING = 0.08  # clients that leave before their answer is complete
MOST_AT_ONCE = 200  # below the server's cap, so that a restart of the engine refuses nobody
WARM_UP = 0.2  # of the time: caches fill
KILLING_PART = 2 / 3  # of the requests: after them, no engine is killed
SAMPLED_EVERY = 5.0  # seconds
CANARY_EVERY = 5.0  # seconds
TOLERANCES = {"memory_bytes": (0.03, 4 << 20), "descriptors": (0.0, 3.0), "threads": (0.0, 1.0)}  # relative, absolute
BINS = 12
ROLES = {"engine": b"engine.worker", "renderer": b"render_worker", "grammar checker": b"check_worker"}


@dataclass
class Sample:
    """One process at one time."""

    at: float  # seconds since the start
    role: str  # front, engine, or what the process runs
    pid: int
    memory_bytes: int
    descriptors: int  # without the clients' connections
    threads: int


@dataclass
class Tally:
    """What the clients saw."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    num_compared: int = 0
    worst_lag: float = 0.0  # seconds by which a request was sent too late

    def fault(self, what: str) -> None:
        if what not in self.faults:
            print(what, file=sys.stderr)
        self.faults[what] += 1


# ---- The server ----


def serve_front(arguments: argparse.Namespace) -> None:
    """The server's process: `antiphon serve` with a fake runner whose steps take some time."""
    from antiphon.commands.serving import run
    from antiphon.config import EngineConfig, FakeSettings, ServerConfig

    fake = FakeSettings(step_seconds=arguments.step_seconds)
    engine = EngineConfig(model=arguments.model, fake=True, fake_settings=fake, kv_cache_tokens=1 << 16)
    # A kill must not look like a hang on a busy machine, and its reload must not refuse anybody.
    run(engine, ServerConfig(port=arguments.front, access_log="off", hang_timeout=60.0, max_wait=0.0))


def role(pid: int) -> str:
    """What a process of the server does, by its command line."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return next((name for name, module in ROLES.items() if module in words), "other")


def sample(server: Server, since: float, num_connections: int) -> list[Sample]:
    """Every process of the server, as it is now."""
    assert server.process is not None
    found = []
    for pid in server.processes():
        try:
            rollup = [line for line in read_lines(Path(f"/proc/{pid}/smaps_rollup")) if line.startswith("Pss:")]
            threads = [line for line in read_lines(Path(f"/proc/{pid}/status")) if line.startswith("Threads:")]
            name, num_open = role(pid), len(os.listdir(f"/proc/{pid}/fd"))
            if pid == server.process.pid:
                name, num_open = "front", num_open - num_connections
        except OSError:  # it has just ended
            continue
        if rollup and threads:
            memory = int(rollup[0].split()[1]) << 10
            found.append(Sample(time.monotonic() - since, name, pid, memory, num_open, int(threads[0].split()[1])))
    return found


def engine_pid(server: Server) -> int | None:
    """The engine's process, if there is one."""
    for pid in server.processes():
        try:
            if role(pid) == "engine":
                return pid
        except OSError:
            continue
    return None


def _blocks_in_use(now: dict[str, float]) -> float:
    """KV blocks in use, of all engines."""
    blocks = {name: value for name, value in now.items() if name.startswith("antiphon_kv_blocks{")}
    return sum(value for name, value in blocks.items() if 'state="in_use"' in name)


async def scrape(port: int) -> dict[str, float]:
    """Samples of /metrics; those that differ in labels are also summed under the bare name."""
    found: dict[str, float] = {}
    for line in (await ask(f"http://127.0.0.1:{port}", "/metrics")).body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            for each in {name, name.partition("{")[0]}:
                found[each] = found.get(each, 0.0) + float(value)
    return found


# ---- The load ----


class Soak:
    """One run against a server that is ready."""

    def __init__(self, server: Server, rate: float, num_requests: int, kill_every: float, seed: int) -> None:
        self.server = server
        self.rate = rate  # requests a second
        self.num_requests = num_requests
        self.kill_every = kill_every
        self.random = random.Random(seed)  # noqa: S311  # noise, no secret
        self.tally = Tally()
        self.samples: list[Sample] = []
        self.num_kills = 0
        self.killed_at = 0.0  # the last time, in seconds since the start
        self.seconds = 0.0  # that it took
        self._num_open = 0  # connections of clients
        self._is_killing = True
        self.catalogue = [random_request(random.Random(f"known {number}")) for number in range(NUM_KNOWN)]  # noqa: S311
        self.texts: list[str] = []
        self._since = 0.0
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    async def run(self) -> None:
        for request in self.catalogue:
            reply = await self._send(request)
            assert reply.status == 200, f"{request.path}: {reply.body!r}"
            assert request.is_complete(reply), f"{request.path}: {reply.body!r}"
            self.texts.append(request.text(reply))
            assert self.texts[-1], f"{request.path}: no text: {reply.body!r}"
        self._since = time.monotonic()
        beside = [asyncio.create_task(task) for task in (self._sample(), self._kill(), self._canary())]
        await self._load()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        for task in beside:
            if not task.cancelled() and task.exception():
                self.tally.fault(f"the benchmark's own {task.get_coro().__qualname__}: {task.exception()!r}")  # type: ignore[union-attr]  # each is a coroutine

    async def _load(self) -> None:
        due = self._since
        async with asyncio.TaskGroup() as group:
            for number in range(self.num_requests):
                self._is_killing = number < KILLING_PART * self.num_requests
                due += self.random.expovariate(self.rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._places.acquire()
                self.tally.worst_lag = max(self.tally.worst_lag, time.monotonic() - due)
                group.create_task(self._one())
        self.seconds = time.monotonic() - self._since

    async def _one(self) -> None:
        try:
            draw = self.random.random()
            if draw < SHARE_BAD:
                await self._refused(self.random.choice(BAD_REQUESTS))
            elif draw < SHARE_BAD + SHARE_LEAVING:
                await self._leaving(random_request(self.random))
            elif self.random.random() < SHARE_KNOWN:
                await self._compared(self.random.randrange(NUM_KNOWN))
            else:
                await self._answered(random_request(self.random))
        finally:
            self._places.release()

    async def _send(self, request: Request) -> Reply:
        self.tally.counts["sent"] += 1
        self._num_open += 1
        try:
            return await ask(f"http://127.0.0.1:{self.server.port}", request.path, request.body)
        finally:
            self._num_open -= 1

    async def _answered(self, request: Request) -> str | None:
        """The text of a complete answer."""
        try:
            reply = await self._send(request)
        except (OSError, EOFError) as error:
            self.tally.fault(f"{request.path}: {error!r}")
            return None
        if reply.status == 503:
            self.tally.counts["refused as too much"] += 1
            return None
        if b"engine_died" in reply.body[-500:]:
            self.tally.counts["ended by two deaths"] += 1
            return None
        if reply.status != 200 or not request.is_complete(reply):
            self.tally.fault(f"{request.path}: status {reply.status}: {reply.body[-300:]!r}")
            return None
        self.tally.counts["answered"] += 1
        return request.text(reply)

    async def _compared(self, number: int) -> None:
        text = await self._answered(self.catalogue[number])
        if text is not None:
            self.tally.num_compared += 1
            if text != self.texts[number]:
                self.tally.fault(f"request {number} of the catalogue: {text!r} instead of {self.texts[number]!r}")

    async def _refused(self, request: Request) -> None:
        try:
            reply = await self._send(request)
        except (OSError, EOFError) as error:
            self.tally.fault(f"{request.path}: {error!r}")
            return
        self.tally.counts["refused as wrong"] += 1
        if not 400 <= reply.status < 500:
            self.tally.fault(f"a bad request to {request.path} got status {reply.status}")

    async def _leaving(self, request: Request) -> None:
        try:
            async with asyncio.timeout(self.random.random() * 0.2):
                await self._send(request)
            self.tally.counts["answered before the client left"] += 1
        except TimeoutError:
            self.tally.counts["left"] += 1
        except (OSError, EOFError) as error:
            self.tally.fault(f"{request.path}: {error!r}")

    # ---- Beside it ----

    async def _canary(self) -> None:
        """One known request at a time, so that also a quiet server is checked."""
        number = 0
        while True:
            await self._compared(number % NUM_KNOWN)
            number += 1
            await asyncio.sleep(CANARY_EVERY)

    async def _sample(self) -> None:
        while True:
            self.samples += sample(self.server, self._since, self._num_open)
            await asyncio.sleep(SAMPLED_EVERY)

    async def _kill(self) -> None:
        while self.kill_every:
            least = self.kill_every / 3  # a request that two engines die of is ended, as it should be
            await asyncio.sleep(least + self.random.expovariate(1 / (self.kill_every - least)))
            if not self._is_killing:
                return
            if pid := engine_pid(self.server):
                os.kill(pid, signal.SIGKILL)
                self.num_kills += 1
                self.killed_at = time.monotonic() - self._since

    # ---- The end ----

    async def accounts(self) -> list[str]:
        """What does not add up once nobody is served."""
        now: dict[str, float] = {}
        for _ in range(600):
            now = await scrape(self.server.port)
            if not (now["antiphon_requests_running"] or _blocks_in_use(now)):
                break
            await asyncio.sleep(0.1)

        def total(what: str) -> float:
            return now[f"antiphon_requests_{what}"]

        ended = total("finished_total") + total("aborted_total") + total("failed_total")
        counts, wrong = self.tally.counts, []
        if total("received_total") != total("refused_total") + total("accepted_total"):
            wrong.append("received is not refused + accepted")
        if total("accepted_total") != ended or total("running"):
            wrong.append("accepted is not finished + aborted + failed")
        if total("failed_total") != counts["ended by two deaths"]:
            wrong.append(f"{total('failed_total'):.0f} requests failed")
        if _blocks_in_use(now) or now["antiphon_sequences_running"]:
            wrong.append("sequences or KV blocks are left")
        if now["antiphon_engine_restarts_total"] != self.num_kills:
            wrong.append(f"{now['antiphon_engine_restarts_total']:.0f} restarts after {self.num_kills} kills")
        warm_up = 8  # the server's own requests before the run, at most
        if not 0 <= total("received_total") - (counts["sent"] - counts["left"]) <= counts["left"] + warm_up:
            wrong.append(f"the clients sent {counts['sent']}, the server received {total('received_total'):.0f}")
        return wrong


# ---- The verdict ----


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """By how much a line through the medians of time bins rises from the first time to the last."""
    first, last = min(times), max(times)
    bins: dict[int, list[tuple[float, float]]] = {}
    for at, value in zip(times, values, strict=True):
        bins.setdefault(int((at - first) / (last - first + 1e-9) * BINS), []).append((at, value))
    if len(bins) < 3:
        return 0.0
    middles = [statistics.median(at for at, _ in part) for part in bins.values()]
    medians = [statistics.median(value for _, value in part) for part in bins.values()]
    return statistics.linear_regression(middles, medians).slope * (last - first)


def trends(samples: Sequence[Sample], seconds: float, killed_at: float) -> list[dict[str, Any]]:
    """For each kind of process and each quantity, its level, its growth, and whether that is flat."""
    found = []
    for name in ("front", *ROLES):
        start = WARM_UP * seconds
        if name == "engine":  # its own caches fill too
            start = max(start, killed_at + WARM_UP * (seconds - killed_at))
        mine = [each for each in samples if each.role == name and each.at >= start]
        if mine and name != "front":
            mine = [each for each in mine if each.pid == mine[-1].pid]
        if len(mine) < 2 * BINS:
            continue
        for quantity, (relative, absolute) in TOLERANCES.items():
            values = [float(getattr(each, quantity)) for each in mine]
            rise, level = growth([each.at for each in mine], values), statistics.median(values)
            allowed = max(relative * level, absolute)
            row = {"process": name, "quantity": quantity, "samples": len(values), "minutes": _minutes(mine)}
            row |= {"median": level, "first": values[0], "last": values[-1], "growth": round(rise, 2)}
            found.append({**row, "allowed": round(allowed, 2), "flat": rise <= allowed})
    return found


def _minutes(samples: Sequence[Sample]) -> float:
    return round((samples[-1].at - samples[0].at) / 60, 1)


def in_bins(samples: Sequence[Sample], seconds: float) -> list[dict[str, Any]]:
    """The front's and the engine's medians in tenths of the time, to be read by people."""
    rows = []
    for number in range(10):
        row: dict[str, Any] = {"until_minutes": round((number + 1) * seconds / 600, 1)}
        for name in ("front", "engine"):
            mine = [each for each in samples if each.role == name and int(each.at / seconds * 10) == number]
            if mine:
                row[name] = {
                    "mib": round(statistics.median(each.memory_bytes for each in mine) / 2**20, 1),
                    "descriptors": statistics.median(each.descriptors for each in mine),
                    "threads": statistics.median(each.threads for each in mine),
                }
        rows.append(row)
    return rows


def markdown(result: dict[str, Any]) -> str:
    lines = ["| process | | at first | at last | growth of the line | allowed | |", "|---|---|---|---|---|---|---|"]
    for row in result["trends"]:
        scale, unit = (2**20, " MiB") if row["quantity"] == "memory_bytes" else (1, "")
        cells = [f"{row[name] / scale:.1f}{unit}" for name in ("first", "last", "growth", "allowed")]
        words = f"{row['quantity'].replace('_bytes', '')}, {row['minutes']:g} minutes"
        lines.append(f"| {row['process']} | {words} | {' | '.join(cells)} | {'flat' if row['flat'] else '**grows**'} |")
    counts = ", ".join(f"{name} {number:,}" for name, number in sorted(result["counts"].items()))
    lines += ["", f"Clients: {counts}; {result['compared']:,} texts compared; engines killed: {result['kills']}."]
    lines.append(f"Faults: {'; '.join(result['faults']) or 'none'}.")
    return "\n".join(lines) + "\n"


# ---- Running it ----


def run_benchmark(arguments: argparse.Namespace) -> int:
    rate = arguments.requests / (arguments.minutes * 60)
    command = f"{sys.executable} {__file__} {arguments.model} --step-seconds {arguments.step_seconds} --front {{port}}"
    server = Server("soak", command)
    with tempfile.TemporaryDirectory() as folder:
        logs = arguments.logs or Path(folder)
        try:
            server.start(logs)
            soak = Soak(server, rate, arguments.requests, arguments.kill_every, arguments.seed)
            asyncio.run(soak.run())
            faults = [f"{number} × {what}" for what, number in soak.tally.faults.items()]
            faults += asyncio.run(soak.accounts())
        finally:
            server.stop()
        if "Traceback" in (logs / "soak.log").read_text():
            faults.append("the server's log has a traceback")
    found = trends(soak.samples, soak.seconds, soak.killed_at)
    faults += [f"{row['process']}: {row['quantity']} grew by {row['growth']:g}" for row in found if not row["flat"]]
    result = {
        "minutes": round(soak.seconds / 60, 1),
        "counts": dict(soak.tally.counts),
        "compared": soak.tally.num_compared,
        "kills": soak.num_kills,
        "worst_lag": round(soak.tally.worst_lag, 2),
        "trends": found,
        "course": in_bins(soak.samples, soak.seconds),
        "faults": faults,
    }
    print(markdown(result), file=sys.stderr)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(result))
    record("soak", result, arguments.json, arguments.model)
    return 1 if faults else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo", help="gives the tokenizer and the template")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--kill-every", type=float, default=90.0, help="seconds between two kills, on average; 0: none")
    parser.add_argument("--step-seconds", type=float, default=0.005, help="what a step of the fake runner takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logs", type=Path, help="folder for the server's log")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--markdown", type=Path, help="where to write the tables")
    parser.add_argument("--front", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.front is not None:
        serve_front(arguments)
    else:
        sys.exit(run_benchmark(arguments))


if __name__ == "__main__":
    main()

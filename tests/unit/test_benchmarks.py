"""The benchmarks: every script starts, and what they decide by figures can fail."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest
from http_server import serving, until
from overload_clients import Attempt, Clients, Load, Seen
from overload_report import figures, percentile, tickets, waits_of
from servers import Server
from soak import Sample, growth, trends

FOLDER = Path(__file__).parents[2] / "benchmarks"
# One process for all of them: importing PyTorch once is dear enough.
START = """
import runpy, sys
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as ending:
        if ending.code:
            raise
"""


@pytest.mark.slow
def test_every_benchmark_starts():
    scripts = sorted(str(path) for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
    assert len(scripts) > 15
    run = subprocess.run(
        [sys.executable, "-c", START, *scripts],
        env={"PYTHONPATH": str(FOLDER), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("usage:") == len(scripts)


def course(role: str, memory: list[float], descriptors: int = 30, pid: int = 1) -> list[Sample]:
    """A process sampled every 5 seconds."""
    return [Sample(5.0 * at, role, pid, int(each), descriptors, 4) for at, each in enumerate(memory)]


def test_the_soak_test_tells_a_leak_from_noise():
    draw = Random(1)  # noqa: S311
    noisy = [100e6 + draw.uniform(-3e6, 3e6) for _ in range(360)]
    leaking = [each + 30e3 * at for at, each in enumerate(noisy)]  # 10.8 MB in half an hour
    spike = [each + 50e6 * (at % 90 == 0) for at, each in enumerate(noisy)]
    flat = {row["quantity"]: row["flat"] for row in trends(course("front", noisy), 1800, 0)}
    assert flat == {"memory_bytes": True, "descriptors": True, "threads": True}
    assert [row["flat"] for row in trends(course("front", spike), 1800, 0)] == [True, True, True]
    assert [row["flat"] for row in trends(course("front", leaking), 1800, 0)] == [False, True, True]


def test_the_soak_test_compares_an_engine_with_itself_alone():
    small = course("engine", [50e6] * 240, pid=1)
    large = [Sample(each.at + 1200, "engine", 2, 90_000_000, 30, 4) for each in course("engine", [90e6] * 120)]
    rows = trends([*small, *large], 1800, 1195)
    assert [row["flat"] for row in rows] == [True, True, True]
    assert rows[0]["first"] == rows[0]["last"] == 90e6


def test_growth_is_the_rise_of_the_line():
    assert growth([0, 1, 2, 3, 4], [10, 12, 14, 16, 18]) == 8
    assert growth([0, 1], [1, 9]) == 0  # too little to say


def test_a_percentile_is_a_value_that_was_seen():
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([float(each) for each in range(1, 101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([], 0.5) is None


def seen(outcome: str, *attempts: Attempt, first: float | None = None, patience: float = 5.0, **more: Any) -> Seen:
    """A request of the overload benchmark that arrived at 0."""
    return Seen(0.0, 0.0, False, patience, list(attempts), first, **more, outcome=outcome)


def test_goodput_counts_complete_answers_in_time_that_ended_in_the_window():
    load = Load(0, "", (1, 1, 5.0), (1, 1, 5.0), rate=2.0, seconds=30.0)
    good = [seen("complete", Attempt(at, 200), first=at + 1, ended=at + 1, tokens=10) for at in (5, 12, 15, 18, 29.5)]
    late = seen("complete", Attempt(10, 200), first=16.0, ended=16.0)
    row = figures(load, [*good, late], [], {}, {"accepted": 6, "finished": 4, "aborted": 1, "failed": 0})
    assert row["goodput"] == 3 / 20  # after a warm-up of 10 seconds, and before the 30th
    assert row["good_tokens_per_second"] == 30 / 20
    assert row["too_late"] == 1
    assert row["unaccounted"] == 1


def test_a_client_that_left_has_waited_for_ever_and_refused_ones_have_not_waited():
    refused = seen("refused", Attempt(0, 503), Attempt(1, 529))
    impatient = seen("impatient", Attempt(0, 503), Attempt(1, 0))
    at_the_end = seen("left", Attempt(0, 200))
    complete = seen("complete", Attempt(0, 0), Attempt(6, 200), first=8.0)
    assert waits_of([refused, impatient, at_the_end, complete]) == [(inf, 5.0), (inf, 5.0), (2.0, 5.0)]


def test_a_time_to_come_back_is_kept_if_who_came_then_was_accepted():
    kept = seen("complete", Attempt(0, 503, 0.1, 2.0), Attempt(2.1, 200), first=3.0)
    broken = seen("refused", Attempt(0, 503, 0.1, 2.0), Attempt(2.1, 503, 2.2, 7.0))
    too_early = seen("complete", Attempt(0, 503, 0.1, 2.0), Attempt(1, 200), first=3.0)
    told_no = seen("refused", Attempt(0, 503, 0.1, None, "false"))
    assert tickets([kept, broken, too_early, told_no]) == {
        "refusals": 5,
        "with_a_time": 4,
        "came_back": 2,
        "were_accepted": 1,
        "told_to_give_up": 1,
    }


@pytest.mark.parametrize("kind", ["stock", "naive"])
async def test_clients_of_the_overload_benchmark_read_whole_answers_and_streams(tmp_path, kind):
    async with serving(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        load = Load(port, "", (5, 4, 60.0), (9, 6, 60.0), rate=60.0, seconds=0.4, kind=kind)
        clients = Clients(load)
        await clients.run()
    assert {each.outcome for each in clients.all} == {"complete"}
    assert {each.is_long: each.tokens for each in clients.all} == {False: 4, True: 6}
    assert all(each.is_good and len(each.attempts) == 1 and each.attempts[0].status == 200 for each in clients.all)
    assert Seen.from_json(json.dumps(asdict(clients.all[0]))) == clients.all[0]


@pytest.mark.parametrize("kind", ["stock", "naive"])
async def test_clients_of_the_overload_benchmark_note_refusals(tmp_path, kind):
    async with serving(tmp_path, max_queued_requests=1, fake={"step_seconds": 0.05}) as server:
        running = asyncio.create_task(server.complete(max_tokens=4000))
        await until(lambda: server.engine.counters.running == 1)
        load = Load(int(server.url.rpartition(":")[2]), "", (5, 4, 60.0), (5, 4, 60.0), rate=200.0, seconds=0.05)
        load = replace(load, kind=kind, tries=2, pause=0.01, ends_within=8.0)
        clients = Clients(load)
        await clients.run()
        running.cancel()
    assert clients.all
    assert all(each.attempts[0].status == 503 for each in clients.all)
    assert {each.outcome for each in clients.all} <= {
        "refused",
        "left",
    }  # the stock client waits until it may come back


DYING = """
import json, os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    if connection.recv(65536).startswith(b"POST"):
        os._exit(3)
    body = json.dumps({"data": [{"id": "model"}]}).encode()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    connection.close()
"""


def test_a_benchmark_says_how_its_server_ended(tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    server = Server("dying", f"{sys.executable} {script} {{port}}")
    with pytest.raises(SystemExit, match=rf"dying ended with status 3; see {tmp_path}/dying\.log"):
        server.start(tmp_path)
    server.stop()
    server.stop()

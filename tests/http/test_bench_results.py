"""`antiphon bench` to its report, its comparison and its search, against a server with the fake runner."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import msgspec
import pytest
from http_server import Served, serving
from running_server import text_model
from tiny_checkpoints import CHATML_TEMPLATE

from antiphon.bench.comparison import Comparison
from antiphon.bench.summary import Summary

pytestmark = pytest.mark.asyncio(loop_scope="module")
# The server is in this process, and the machine may be busy: how late the client is does not matter here.
PATIENT = ("--max-lag", "1e9", "--max-tokens", "8", "--warmups", "0")


async def bench(*arguments: object) -> tuple[int, str]:
    """Run the command as a person does: its exit status, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "antiphon", "bench", *(str(each) for each in arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def summary_of(folder: Path) -> Summary:
    return msgspec.json.decode((folder / "summary.json").read_bytes(), type=Summary)


async def test_a_load_test_ends_with_a_report_and_a_status_for_its_objectives(served: Served, tmp_path: Path):
    folder = tmp_path / "run"
    limits = ("--slo", "p95 ttft < 60s", "--slo", "error_rate < 1%", "--goodput", "ttft:60000", "--mean-limit", "60")
    status, out = await bench(served.url, "--users", "1,2", "-n", 6, "-o", folder, *PATIENT, *limits)
    assert status == 0, out
    assert "All 2 objectives were met in every stage." in " ".join(out.split())
    assert {path.name for path in folder.iterdir()} == {
        "journal.jsonl", "report.html", "report.md", "requests.csv", "summary.json",
    }  # fmt: skip
    summary = summary_of(folder)
    assert [(stage.label, stage.requests, stage.ends) for stage in summary.stages] == [
        ("1 user", 6, {"answered": 6}),
        ("2 users", 6, {"answered": 6}),
    ]
    assert all(stage.tokens.answer == 48 and stage.goodput == 1.0 for stage in summary.stages)
    assert [each.users for each in summary.users_within] == [2, 2]
    status, out = await bench("report", folder, "--slo", "p50 ttft < 0.001ms")
    assert status == 3, out
    assert "Not met: p50 ttft < 0.001ms" in out
    assert summary_of(folder).stages[0].output_tokens_per_second == summary.stages[0].output_tokens_per_second


async def test_a_wrong_limit_is_refused_before_anything_is_sent(served: Served, tmp_path: Path):
    status, out = await bench(served.url, "-o", tmp_path / "run", "--slo", "p95 < 2s")
    assert status == 2
    assert "--slo 'p95 < 2s'" in out
    assert not (tmp_path / "run").exists()


async def test_two_servers_are_measured_in_turn_and_compared(served: Served, tmp_path: Path):
    folder = tmp_path / "both"
    async with serving(tmp_path) as other:
        load = ("--users", 2, "-n", 6, "--rounds", 3)
        names = ("--name-a", "one", "--name-b", "<b>two</b>")
        status, out = await bench("compare", served.url, other.url, *load, *names, "-o", folder, *PATIENT)
    assert status == 0, out
    found = msgspec.json.decode((folder / "comparison.json").read_bytes(), type=Comparison)
    assert (found.a, found.b, found.method) == ("one", "<b>two</b>", "paired rounds")
    assert [each.rounds for each in found.estimates] == [3] * len(found.estimates)
    assert {"first token, P50", "end to end, P95", "output tokens/s"} <= {each.metric for each in found.estimates}
    starts = sorted(
        (stage.started + summary.run.started_at, summary.run.name)
        for summary in map(summary_of, (folder / "a", folder / "b"))
        for stage in summary.stages
    )
    one, two = "one", "<b>two</b>"
    assert [name for _, name in starts] == [one, two, two, one, one, two]
    page = (folder / "comparison.html").read_text()
    assert "&lt;b&gt;two&lt;/b&gt;" in page
    assert "<b>" not in page
    status, out = await bench("compare", folder / "a", folder / "b", "-o", tmp_path / "again")
    assert status == 0, out
    assert "independent rounds" in (tmp_path / "again" / "comparison.json").read_text()
    assert "measured at different times" in " ".join(out.split())


async def test_servers_that_are_given_as_commands_are_started_compared_and_ended(tmp_path: Path):
    text_model(tmp_path, CHATML_TEMPLATE).close()
    serve = f"{shlex.quote(sys.executable)} -m antiphon serve {tmp_path / 'tiny.gguf'} --fake-engine --port {{port}}"
    names = ("--name-a", "one", "--name-b", "two")
    folder = tmp_path / "both"
    load = ("--users", 2, "-n", 4, "--rounds", 2, *PATIENT)
    status, out = await bench("compare", serve, serve, *load, *names, "-o", folder)
    assert status == 0, out
    assert [stage.ends for each in "ab" for stage in summary_of(folder / each).stages] == [{"answered": 4}] * 4
    assert "at least 3 rounds" in " ".join(out.split())
    for log in ("a.log", "b.log"):
        assert "Traceback" not in (folder / log).read_text()


async def test_the_knee_is_searched_for_and_is_in_the_report(served: Served, tmp_path: Path):
    folder = tmp_path / "knee"
    status, out = await bench(
        served.url, "--find-knee", "-u", 3, "-n", 4, "-o", folder, *PATIENT, "--slo", "p50 ttft < 60s"
    )
    assert status == 0, out
    knee = summary_of(folder).knee
    assert knee is not None
    assert (knee.load, knee.too_much) == (3, None)
    assert [(trial.load, trial.met, trial.stages) for trial in knee.trials] == [(1, 2, 2), (2, 2, 2), (3, 5, 5)]
    assert "kept up to 3 users" in " ".join(out.split())
    assert "Search for the knee" in (folder / "report.html").read_text()


async def test_a_search_takes_no_other_shapes(served: Served, tmp_path: Path):
    status, out = await bench(served.url, "--find-knee", "--ramp", "1..2", "-o", tmp_path / "run")
    assert status == 2
    assert "--find-knee chooses loads and rounds itself" in out

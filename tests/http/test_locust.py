"""The file for locust, run by locust in a process of its own against a real server."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from http_server import serving
from patience import PATIENCE
from tiny_checkpoints import CHATML_TEMPLATE

FILE = Path(__file__).parents[2] / "deploy" / "locust" / "locustfile.py"
PARTS = Path(__file__).parents[1] / "helpers" / "locust_parts.py"
KINDS = ("first token", "first answer token", "time per token", "whole answer")
PROMPTS = {"short chat", "shared system prompt", "long document", "mathematics"}


async def locust(folder: Path, url: str, *options: str) -> tuple[int, str]:
    """Run it headless; returns the exit status and the log. Statistics are in `folder`."""
    command = [sys.executable, "-W", "ignore", "-m", "locust", "-f", str(FILE), "--headless", "--host", url]
    command += ["--csv", str(folder / "run"), "--csv-full-history", "--only-summary", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST")}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment, cwd=folder
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode()


def entries(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Locust's statistics, by kind and name."""
    with (folder / "run_stats.csv").open() as file:
        return {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}


def total(rows: dict[tuple[str, str], dict[str, str]], kind: str, field: str = "Request Count") -> int:
    return sum(int(row[field]) for (of_kind, _), row in rows.items() if of_kind == kind)


def users(folder: Path) -> list[int]:
    """The number of users at each second."""
    with (folder / "run_stats_history.csv").open() as file:
        return [int(row["User Count"]) for row in csv.DictReader(file) if row["Name"] == "Aggregated"]


async def test_its_counts_are_the_servers_and_its_users_follow_the_shape(tmp_path):
    """A thought and an answer in each stream, and more users than the server takes at once."""
    template = CHATML_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
    script = "aa</think>" + "bb" * 10
    options = ("--ramp", "1..6", "--ramp-seconds", "3", "--hold-seconds", "4", "--think-seconds", "0.1")
    options += ("--max-tokens", "20", "--document-words", "20", "--check")
    async with serving(
        tmp_path, template=template, script=script, max_queued_requests=3, fake={"step_seconds": 0.02}
    ) as served:
        status, log = await locust(tmp_path, served.url, *options)
        now = await served.metrics()
    rows = entries(tmp_path)
    assert status == 0, log
    finished = now['antiphon_requests_finished_total{endpoint="chat"}']
    refused = now['antiphon_requests_refused_total{code="server_overloaded",endpoint="chat"}']
    assert finished > 0
    assert refused > 0
    for kind in KINDS:
        assert total(rows, kind) == finished, (kind, log)
        assert total(rows, kind, "Failure Count") == 0
    assert total(rows, "refused") == refused
    assert 0 < now["antiphon_retries_seen_total"] <= refused
    assert {name for kind, name in rows if kind == "whole answer"} <= PROMPTS
    for _, name in [key for key in rows if key[0] == "whole answer"]:
        first, first_answer, per_token, whole = (float(rows[kind, name]["Average Response Time"]) for kind in KINDS)
        assert 0 < first <= first_answer <= whole  # the thought comes first
        assert 0 < per_token < whole
    assert max(users(tmp_path)) == 6
    rising = users(tmp_path)[: users(tmp_path).index(6)]
    assert rising == sorted(rising)


def test_the_shape_and_the_reading_of_answers():
    """In a process of its own: to import locust is to patch Python's sockets and threads."""
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", str(PARTS), str(FILE)], capture_output=True, text=True, check=True
    )
    assert json.loads(printed.stdout) == {
        "ticks": [[1, 19], [10, 19], [19, 19], [20, 19], [20, 19], None],
        "separate": [1, 3, 0.75],  # 5 tokens, the first after 1 s, the last after 4
        "inside": [1, 6, 1.25],
        "none": [1, 1, 0.25],
        "only a thought": [1, None, 0.25],
        "waits": [3.0, 0.12, None, 0.0],
    }


@dataclass
class BrokenServer:
    """Lists a model, refuses the first request, and cuts each later stream after its second token.

    Its thoughts are part of the content, and it has no metrics.
    """

    url: str = ""
    arrivals: list[float] = field(default_factory=list)  # of requests
    retry_counts: list[str] = field(default_factory=list)
    refused_at: float = 0.0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("POST"):
            self.arrivals.append(time.monotonic())
            self.retry_counts += re.findall(r"(?i)x-stainless-retry-count: (\d+)", head)
        if head.startswith("GET /v1/models"):
            body = json.dumps({"data": [{"id": "m"}]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        elif head.startswith("GET"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif len(self.arrivals) == 1:
            self.refused_at = time.monotonic()
            retry = b"Retry-After: 1\r\nretry-after-ms: 400\r\n"
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n" + retry + b"\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for text in ("a</think>", "b"):
                event = json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
                writer.write(f"data: {event}\n\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def broken_server() -> AsyncIterator[BrokenServer]:
    broken = BrokenServer()
    server = await asyncio.start_server(broken.answer, "127.0.0.1", 0)
    async with server:
        broken.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield broken


async def test_a_cut_stream_is_a_failure_a_refusal_is_not_and_its_time_is_kept(tmp_path):
    async with broken_server() as server:
        options = ("--ramp", "1..1", "--ramp-seconds", "0", "--hold-seconds", "4", "--think-seconds", "0.5", "--check")
        status, log = await locust(tmp_path, server.url, *options)
    rows = entries(tmp_path)
    assert (total(rows, "refused"), total(rows, "refused", "Failure Count")) == (1, 0)
    assert server.arrivals[1] - server.refused_at >= 0.4
    assert server.retry_counts[:2] == ["0", "1"]
    assert total(rows, "whole answer", "Failure Count") == total(rows, "whole answer") == len(server.arrivals) - 1
    assert not [key for key in rows if key[0] == "first token"]
    assert "the stream was cut" in log
    assert "--check needs a server with Antiphon's metrics" in log
    assert status == 2


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [("", (), "--host is missing"), ("http://127.0.0.1:1", ("--ramp", "20"), "'20' is not like")],
)
async def test_without_an_address_or_with_a_wrong_ramp_it_ends_at_once(tmp_path, url, options, named):
    status, output = await locust(tmp_path, url, *options)
    assert status != 0
    assert named in output
    assert "Traceback" not in output

"""What Ray Serve's proxies cost: the same front with its own HTTP server, and as an application of Ray Serve.

Starts a Ray cluster on this machine, `antiphon serve` and `serve run`, both with one engine on Ray and the fake runner,
and sends both the same load in turns. Prints medians as JSON.

    PYTHONPATH=tests/helpers python benchmarks/ray_front.py [--rounds 4] [--streams 16] [--tokens 400]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ray_cluster import ray_cluster

from antiphon.demo import demo_path

_START_SECONDS = 300
_SINGLE = 15  # requests of one token
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Round:
    """One round on one server."""

    cpu_microseconds_per_token: float
    first_token_seconds: float  # median of the streams
    one_token_seconds: float  # median of requests one after the other
    tokens_per_second: float


async def stream(port: int, number: int, tokens: int) -> float:
    """Seconds until the first event of an answer, which is read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = {"prompt": f"Number {number}:", "max_tokens": tokens, "seed": number, "stream": True, "ignore_eos": True}
    body = json.dumps(fields)
    head = f"Host: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}"
    began, first = time.perf_counter(), 0.0
    writer.write(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
    end = b""
    while data := await reader.read(1 << 16):
        if not first and b"data:" in data:
            first = time.perf_counter() - began
        end = (end + data)[-64:]
    writer.close()
    assert b"[DONE]" in end, "the answer is not complete"
    return first


async def streams(port: int, count: int, tokens: int) -> list[float]:
    return await asyncio.gather(*(stream(port, number, tokens) for number in range(count)))


async def one_by_one(port: int) -> list[float]:
    return [await stream(port, 1, 1) for _ in range(_SINGLE)]


def measure(port: int, pids: Sequence[int], count: int, tokens: int) -> Round:
    before, began = cpu_seconds(pids), time.perf_counter()
    firsts = asyncio.run(streams(port, count, tokens))
    seconds, used = time.perf_counter() - began, cpu_seconds(pids) - before
    total = count * tokens
    singles = asyncio.run(one_by_one(port))
    return Round(used / total * 1e6, statistics.median(firsts), statistics.median(singles), total / seconds)


def cpu_seconds(pids: Sequence[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_ready(port: int) -> None:
    for _ in range(_START_SECONDS):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
            return
        time.sleep(1)
    raise SystemExit("a server did not become ready")


def serve_file(folder: Path, model: str, engines: str, port: int) -> Path:
    """A file for `serve run`; JSON is YAML."""
    arguments = {"model": model, "engines": engines, "fake_engine": True}
    application = {"name": "antiphon", "route_prefix": "/", "import_path": "antiphon.ray:app", "args": arguments}
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [application],
    }
    file = folder / "serve.yaml"
    file.write_text(json.dumps(config))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=400)
    asked = parser.parse_args()
    programs, model = Path(sys.executable).parent, str(demo_path())
    with tempfile.TemporaryDirectory() as name, ray_cluster(Path(name), 4) as cluster:
        folder, engines = Path(name), f"ray://{cluster.address}?num_cpus=1"
        ports = {"antiphon serve": free_port(), "ray serve": free_port()}
        own = [f"{programs}/antiphon", "serve", model, "--fake-engine", "--engines", engines]
        own += ["--port", str(ports["antiphon serve"])]
        file = serve_file(folder, model, engines, ports["ray serve"])
        theirs = [f"{programs}/serve", "run", str(file), "--address", cluster.address]
        with (folder / "log").open("w") as log:
            started = [subprocess.Popen(command, stdout=log, stderr=log) for command in (own, theirs)]
        try:
            for port in ports.values():
                wait_ready(port)
                asyncio.run(streams(port, 4, 50))
            of_serve = [*cluster.processes("ray::ServeReplica"), *cluster.processes("ray::ProxyActor")]
            pids = {"antiphon serve": [started[0].pid], "ray serve": of_serve}
            rounds: dict[str, list[Round]] = {each: [] for each in ports}
            for _ in range(asked.rounds):
                for each, port in ports.items():
                    rounds[each].append(measure(port, pids[each], asked.streams, asked.tokens))
        finally:
            for process in started:
                process.send_signal(signal.SIGINT)
            for process in started:
                process.wait(60)
    medians = {
        each: {field: round(statistics.median(asdict(one)[field] for one in all_), 6) for field in asdict(all_[0])}
        for each, all_ in rounds.items()
    }
    result = {"streams": asked.streams, "tokens": asked.tokens, "rounds": asked.rounds, "load": os.getloadavg()[0]}
    print(json.dumps(result | {"medians": medians}, indent=2))


if __name__ == "__main__":
    main()

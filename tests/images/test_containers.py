"""Containers of the image, under limits, as they are run: they answer, drain, and outlive their engine."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from containers import Container, running, state_of, trusted, unused_port
from patience import PATIENCE, wait_until
from real_server import TLS

pytestmark = pytest.mark.slow
_LIMITED = ("--cpus", "1", "--memory", "1g", "--memory-swap", "1g")
_LONG = {"prompt": "Once upon a time", "max_tokens": 400, "temperature": 0, "seed": 1, "ignore_eos": True}


@pytest.fixture
def limited(image: str, demo_model: Path) -> Iterator[Container]:
    """A server of the demo model, with one CPU and 1 GiB."""
    options = (*_LIMITED, "--volume", f"{demo_model.parent}:/models:ro", "--env", "ANTIPHON_DRAIN_TIMEOUT=600")
    with running(
        "antiphon-test", image, "serve", f"/models/{demo_model.name}", options=options, port=unused_port()
    ) as it:
        yield it


def test_one_cpu_and_one_gibibyte_give_threads_and_a_cache_that_fit(limited: Container):
    greeting = re.search(r"1 thread \(the CPU quota is 1\) · memory ([\d.]+) of 1\.0 GiB free", limited.log)
    assert greeting, limited.log
    now = limited.metrics()
    assert (now["antiphon_cpu_limit_cores"], now["antiphon_memory_limit_bytes"]) == (1, 2**30)
    tokens = re.search(r"KV cache int8 ([\d,]+) tokens", limited.log)
    assert tokens
    assert 4096 < int(tokens[1].replace(",", "")) < 40_000  # 1 GiB holds them beside the weights and two processes

    reply = httpx2.post(
        f"{limited.url}/v1/completions",
        json={"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0},
        timeout=PATIENCE,
        trust_env=False,
        verify=TLS,
    )
    assert "Paris" in reply.json()["choices"][0]["text"]


def test_no_process_is_roots_or_has_a_capability_and_the_root_is_read_only(limited: Container):
    states = [state_of(pid) for pid in limited.pids]
    assert [state["Name"] for state in states][:2] == ["tini", "antiphon"]
    for state in states:
        assert set(state["Uid"].split()) == {"10001"}
        assert int(state["CapEff"], 16) == 0
        assert state["NoNewPrivs"] == "1"
    for folder in ("/", "/opt/antiphon", "/models", "/var/cache/antiphon"):
        assert limited.execute("touch", f"{folder}/file", check=False).returncode != 0
    limited.execute("touch", "/tmp/file")  # noqa: S108


def test_stop_drains_and_an_orphan_is_reaped(limited: Container):
    limited.execute("sh", "-c", "sleep 0.1 & exit")
    alone = complete(limited)
    begun = threading.Event()
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(complete, limited, begun)
        begun.wait()
        assert no_zombies(limited)
        limited.stop(seconds=int(PATIENCE))
        assert stream.result() == alone
    state = limited.inspect()["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


def test_when_memory_runs_out_the_engine_is_killed_and_streams_go_on(limited: Container):
    alone, front = complete(limited), limited.pids[1]
    begun = threading.Event()
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(complete, limited, begun)
        begun.wait()
        limited.execute("python3", "-c", _TAKE_MEMORY, check=False)
        assert stream.result() == alone
    assert killed(limited) == 1
    assert limited.metrics()["antiphon_engine_restarts_total"] == 1
    assert limited.pids[1] == front
    assert "it was killed (SIGKILL)" in limited.log
    wait_until(limited.is_healthy, "it did not get healthy again")
    wait_until(lambda: no_zombies(limited), "a dead process was not reaped")
    assert complete(limited) == alone
    limited.signal("TERM")
    assert limited.wait() == 0


def test_a_download_goes_to_the_cache_volume(image: str, tmp_path: Path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    options = (*trusted(), "--volume", f"{cache}:/var/cache/antiphon", "--memory", "1g")
    with running("antiphon-download", image, options=options, port=unused_port()) as container:
        (model,) = httpx2.get(f"{container.url}/v1/models", trust_env=False, verify=TLS).json()["data"]
        assert model["id"].startswith("SmolLM2")
        (file,) = cache.glob("demo/*.gguf")
        assert file.stat().st_uid == 10001


# Four processes take memory, 4 MiB at a time, until the kernel has killed one of the container's processes. Each takes
# less than half of it: the kernel kills what has more than that before an engine.
_TAKE_MEMORY = """
import os, pathlib, time
folder = pathlib.Path("/sys/fs/cgroup/memory" if os.path.exists("/sys/fs/cgroup/memory") else "/sys/fs/cgroup")
file = next(path for name in ("memory.oom_control", "memory.events") if (path := folder / name).exists())
os.fork(), os.fork()
taken = []
while "oom_kill 0" in file.read_text().splitlines():
    if len(taken) < 60:
        taken.append(b"x" * (4 << 20))
    time.sleep(0.01)
"""


def complete(container: Container, begun: threading.Event | None = None) -> str:
    """The text of a stream that must end properly; `begun` is set at its tenth piece."""
    pieces = []
    with httpx2.stream(
        "POST",
        f"{container.url}/v1/completions",
        json={**_LONG, "stream": True},
        timeout=PATIENCE,
        trust_env=False,
        verify=TLS,
    ) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if line == "data: [DONE]":
                return "".join(pieces)
            if line:
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                pieces += [choice["text"] for choice in chunk["choices"]]
            if begun and len(pieces) == 10:
                begun.set()
    raise AssertionError("the stream was cut")


def killed(container: Container) -> int:
    """How many processes of the container the kernel has killed because its memory ran out."""
    group = container.control_group("memory")
    file = next(path for name in ("memory.oom_control", "memory.events") if (path := group / name).exists())
    return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])


def no_zombies(container: Container) -> bool:
    """Whether none of its processes has ended without being waited for."""
    states = container.execute("sh", "-c", "grep -h ^State: /proc/[0-9]*/status").stdout
    assert "State:" in states
    return "Z (zombie)" not in states

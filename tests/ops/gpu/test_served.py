"""Models served on the GPU's kernels, in the interpreter, by real engine processes: the CPU engine's answers.

The engine that runs in the interpreter stands for one on a GPU.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fronts import read
from loads import Answer, ask
from patience import PATIENCE, wait_until
from real_server import RealServer, real_server
from tiny_folders import write_random_folder

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.wire import EngineStats
from antiphon.loading.assembly import assemble
from antiphon.loading.model import Found
from antiphon.request import GenerateRequest

SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
REQUESTS = (
    {"prompt": "one two three four", "temperature": 0, "logprobs": 3, "max_tokens": 2},
    {"prompt": "one two three five", "temperature": 1.2, "top_p": 0.9, "seed": 4, "max_tokens": 3},
    {"prompt": "six", "temperature": 0.9, "top_k": 8, "seed": 5, "max_tokens": 2, "frequency_penalty": 1.0},
)
STREAMED = {"prompt": "one two three", "temperature": 0.8, "seed": 9, "max_tokens": 30, "stream": True}
ADMIN = {"Authorization": "Bearer an-admin-key-of-tests"}


@pytest.mark.slow
def test_an_answer_begun_on_the_gpu_goes_on_on_the_cpu_when_the_gpu_is_lost(tmp_path: Path) -> None:
    """The engine is killed in the middle of a stream, and cannot be started again: there is no Triton any more."""
    folder = write_random_folder(tmp_path / "model", "qwen2", num_hidden_layers=2, **SMALL)
    broken = tmp_path / "broken" / "triton"
    common = (str(folder), "--max-num-seqs", "4", "--kv-cache-tokens", "512", "--max-batch-tokens", "16")
    with real_server(*common) as server:
        expected = asyncio.run(answers(server))
        whole = asyncio.run(streamed(server))
    options = ("--hang-timeout", "60", "--engines", "interpreter,cpu", "--admin-key", ADMIN["Authorization"].split()[1])
    # The interpreter is chosen first, since a GPU counts as faster until both are measured.
    with real_server(*common, *options, environment={"PYTHONPATH": str(broken.parent)}) as server:
        gpu, cpu = engines(server)
        assert (gpu["address"], cpu["address"]) == ("interpreter", "cpu")
        assert gpu["fingerprint"] == cpu["fingerprint"]
        assert asyncio.run(streamed(server, gpu["pid"], broken)) == whole
        assert asyncio.run(answers(server)) == expected  # texts, log-probabilities and fingerprints
        wait_until(lambda: "needs PyTorch and Triton" in (engines(server)[0]["trouble"] or ""), "no trouble is told")
        gpu, cpu = engines(server)
        assert (gpu["state"], cpu["state"], cpu["restarts"]) == ("restarting", "ready", 0)
        assert "needs PyTorch and Triton" in server.messages


def engines(server: RealServer) -> list[dict[str, Any]]:
    async def get() -> list[dict[str, Any]]:
        async with server.http() as client:
            return (await client.get("/admin/engines", headers=ADMIN)).json()["data"]

    return asyncio.run(get())


async def answers(server: RealServer) -> list[dict[str, Any]]:
    """All requests at once, so that they share steps; what may differ between two answers is left out."""
    async with server.http() as client:
        replies = await asyncio.gather(*(client.post("/v1/completions", json=request) for request in REQUESTS))
    assert [reply.status_code for reply in replies] == [200] * len(REQUESTS), [reply.text for reply in replies]
    return [{key: reply.json()[key] for key in ("choices", "usage", "system_fingerprint")} for reply in replies]


async def streamed(server: RealServer, gpu: int | None = None, broken: Path | None = None) -> str:
    """A streamed text; after its first piece the process `gpu` is killed, and Triton cannot be imported any more."""
    pieces: list[str] = []
    async with server.http() as client, client.stream("POST", "/v1/completions", json=STREAMED) as reply:
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                pieces += [choice["text"] for choice in json.loads(line.removeprefix("data: "))["choices"]]
            if gpu is not None and broken is not None and pieces:
                await asyncio.to_thread(lose_gpu, gpu, broken)
                gpu = None
    return "".join(pieces)


def lose_gpu(pid: int, broken: Path) -> None:
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('lost')\n")
    os.kill(pid, signal.SIGKILL)


# Two sequences, of which one has to give way: they need five blocks and a half of 32 tokens, and there are four.
SHARED = [5 + n % 40 for n in range(33)]
PROMPTS = ([*SHARED, *range(60, 86)], [*SHARED, *range(90, 118)], [7, 8, 9])


def requests() -> list[GenerateRequest]:
    return [
        ask("greedy", PROMPTS[0], temperature=0.0, max_tokens=8, ignore_eos=True),
        ask("drawn", PROMPTS[1], temperature=0.9, seed=3, max_tokens=9, ignore_eos=True),
        ask("short", PROMPTS[2], temperature=1.1, top_k=20, seed=4, max_tokens=4, ignore_eos=True),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
async def test_load_chunks_preemption_and_prefix_cache_change_no_bit_on_the_gpu(
    tmp_path: Path, architecture: str
) -> None:
    """On the GPU all at once, where prompts are cut, a prefix is found and one gives way; on the CPU one by one."""
    folder = write_random_folder(tmp_path / "model", architecture, num_hidden_layers=2, **SMALL)
    async with serving(folder, kv_cache_tokens=128, max_batch_tokens=48, device="interpreter") as client:
        ours = await asyncio.gather(*(read(client.generate(request)) for request in requests()))
        stats = client.stats
    async with serving(folder, kv_cache_tokens=512, prefix_caching=False) as client:
        cpus: list[Answer] = [await read(client.generate(request)) for request in requests()]
        assert client.stats.num_preemptions == client.stats.num_prefix_hits == 0
    assert ours == cpus
    assert_was_disturbed(stats)


def assert_was_disturbed(stats: EngineStats) -> None:
    assert stats.num_preemptions > 0
    assert stats.num_prefix_hits > 0


@asynccontextmanager
async def serving(folder: Path, **settings: object) -> AsyncIterator[EngineClient]:
    """A ready client as `antiphon serve` has it."""
    engine = EngineConfig(str(folder), threads=1, max_num_sequences=4, **settings)  # type: ignore[arg-type]
    assembly = assemble(Found(folder, "m"), engine, ServerConfig())
    client = EngineClient(assembly.engine, ServerConfig(hang_timeout=60.0), assembly.model.text.vocabulary)
    await client.start()
    try:
        async with asyncio.timeout(PATIENCE):
            await client.wait_ready()
        yield client
        assert client.state is EngineState.READY
    finally:
        async with asyncio.timeout(PATIENCE):
            await client.drain(0)
            await client.stop()
        assembly.model.text.close()
        assembly.checkpoint.files.close()

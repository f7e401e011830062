"""A model served on the GPU's kernels, in the interpreter, by a real engine process: the CPU server's answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from real_server import RealServer, real_server
from tiny_folders import write_random_folder

REQUESTS = (
    {"prompt": "one two three four", "temperature": 0, "logprobs": 3, "max_tokens": 2},
    {"prompt": "one two three five", "temperature": 1.2, "top_p": 0.9, "seed": 4, "max_tokens": 3},
    {"prompt": "six", "temperature": 0.9, "top_k": 8, "seed": 5, "max_tokens": 2, "frequency_penalty": 1.0},
)


@pytest.mark.slow
def test_a_server_on_the_gpu_s_kernels_gives_the_cpu_server_s_answers(tmp_path: Path) -> None:
    folder = write_random_folder(tmp_path / "model", "qwen2", num_hidden_layers=2)
    common = (str(folder), "--max-num-seqs", "4", "--kv-cache-tokens", "512", "--max-batch-tokens", "16")
    with real_server(*common, "--hang-timeout", "60", "--device", "interpreter") as server:
        ours = asyncio.run(answers(server))
    with real_server(*common) as server:
        cpus = asyncio.run(answers(server))
    assert ours == cpus  # texts, log-probabilities and fingerprints


async def answers(server: RealServer) -> list[dict[str, Any]]:
    """All requests at once, so that they share steps; what may differ between two answers is left out."""
    async with server.http() as client:
        replies = await asyncio.gather(*(client.post("/v1/completions", json=request) for request in REQUESTS))
    assert [reply.status_code for reply in replies] == [200] * len(REQUESTS), [reply.text for reply in replies]
    return [{key: reply.json()[key] for key in ("choices", "usage", "system_fingerprint")} for reply in replies]

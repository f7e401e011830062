"""`antiphon quantize` as a person runs it, and what it wrote, served."""

from __future__ import annotations

import subprocess
import sys

import pytest
from real_server import real_server
from tiny_folders import write_random_folder

pytestmark = pytest.mark.slow


def quantize(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "antiphon", "quantize", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


async def test_a_folder_is_written_in_4_bits_and_served(tmp_path):
    source = write_random_folder(tmp_path / "model", "qwen2")
    text = tmp_path / "text.txt"
    text.write_text("Seven men and 12 dogs went over the hill; what they saw there nobody says. " * 60)
    done = quantize(source, tmp_path / "small", "--calibrate", text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "small")
    for words in ("mlp.down_proj", "Q4_1", "bits a weight", "mean KL divergence", "perplexity"):
        assert words in done.stderr
    with real_server(tmp_path / "small", "--kv-cache-tokens", "4096") as server:
        async with server.openai() as client:
            reply = await client.completions.create(model=server.model, prompt="Seven men", max_tokens=8)
            assert reply.usage is not None
            assert reply.usage.completion_tokens == 8


def test_a_place_that_is_taken_is_one_line_of_error(tmp_path):
    source = write_random_folder(tmp_path / "model", "llama")
    (tmp_path / "taken").mkdir()
    done = quantize(source, tmp_path / "taken")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "--force replaces it" in done.stderr
    assert "Traceback" not in done.stderr

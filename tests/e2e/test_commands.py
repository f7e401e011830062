"""`antiphon chat` and `antiphon inspect` with the real model, as a script would use them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from patience import PATIENCE
from real_server import RealServer

pytestmark = [pytest.mark.model, pytest.mark.slow]


def _antiphon(*arguments: str, told: str | None = None) -> str:
    command = [sys.executable, "-m", "antiphon", *arguments]
    finished = subprocess.run(command, input=told, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return finished.stdout


def test_a_question_through_a_pipe(server: RealServer):
    answer = _antiphon("chat", "--url", server.url, "--temperature", "0", told="What is the capital of France?")
    assert answer == "The capital of France is Paris.\n"


def test_a_question_to_a_model_of_ones_own(demo_model):
    """Without a server, `chat MODEL` serves for as long as the question takes."""
    answer = _antiphon("chat", str(demo_model), "--temperature", "0", told="What is the capital of France?")
    assert answer == "The capital of France is Paris.\n"


def test_inspect_says_what_the_model_weighs(demo_model):
    found = json.loads(_antiphon("inspect", str(demo_model), "--json"))
    assert (found["architecture"], found["format"], found["chat_template"]) == ("llama", "gguf", True)
    assert {kind: row["count"] for kind, row in found["tensors"].items()} == {"Q4_1": 210, "Q8_0": 1, "F32": 61}
    assert found["settings"]["num_hidden_layers"] == 30
    assert found["parameters"] == 134_515_008
    assert found["memory"]["w4"] + found["memory"]["w8"] < demo_model.stat().st_size
    # Bytes of a token: 30 layers of K and V, three heads of 64; int8 has a scale for each 32, 16-bit has none.
    assert found["kv_cache"]["f16"]["bytes_per_token"] == 30 * 2 * 3 * 64 * 2
    assert 30 * 2 * 3 * 64 < found["kv_cache"]["int8"]["bytes_per_token"] < 30 * 2 * 3 * 64 * 1.25


def test_inspect_and_serve_agree(demo_model, server: RealServer):
    """What inspect promises of the K/V cache is what the server has."""
    found = json.loads(_antiphon("inspect", str(demo_model), "--json"))
    now = server.wait_idle()
    free, cached = (now[f'antiphon_kv_blocks{{engine="1",state="{state}"}}'] for state in ("free", "cached"))
    assert (free + cached) * 32 == found["kv_cache"]["int8"]["default_tokens"]

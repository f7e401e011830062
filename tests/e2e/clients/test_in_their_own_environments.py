"""Frameworks and tools that people use with OpenAI's API, each as a script in a process of its own.

Pydantic AI is installed with the tests. The others' requirements conflict with those of the tests, or are large:
`make clients` installs them into an environment of their own and runs these tests; where they are not installed the
tests are skipped. Each script gets the server's URL and the model's name, and prints what came back as JSON on its last
line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from real_server import RealServer

pytestmark = [pytest.mark.model, pytest.mark.slow]

HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("ANTIPHON_CLIENTS") or Path(__file__).parents[3] / "build" / "clients") / "bin" / "python"
ANSWER, CITY = "The capital of France is Paris.", {"city": "Paris"}


def run(command: list[str | Path], **environment: str) -> str:
    """What a client's process prints."""
    finished = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def told(script: str, server: RealServer, python: Path = PYTHON) -> dict[str, Any]:
    """What came back to a Python script."""
    if not python.is_file():
        pytest.skip("`make clients` installs this client")
    return json.loads(run([python, HERE / script, server.url, server.model]).splitlines()[-1])


def test_pydantic_ai(server: RealServer):
    said = told("pydantic_ai_client.py", server, Path(sys.executable))
    assert said["answers"] == [ANSWER] * 2
    assert said["output_tokens"] == 8
    assert said["structured"] == [CITY] * 2


def test_instructor(server: RealServer):
    said = told("instructor_client.py", server)
    assert said["structured"] == [CITY] * 2
    assert [partial[-1] for partial in said["partial"]] == [CITY["city"]] * 2
    assert len(said["partial"][1]) > 2  # it grows


def test_openai_agents(server: RealServer):
    said = told("openai_agents_client.py", server)
    assert said["answers"] == [ANSWER] * 4
    assert said["called_with"] == [CITY["city"]] * 2
    assert all(said["after_a_call"])
    assert said["structured"] == [CITY] * 2


def test_smolagents(server: RealServer):
    said = told("smolagents_client.py", server)
    assert said["answers"] == [ANSWER] * 2
    assert said["called"] == ["get_weather"]


def test_the_ai_sdk_and_openai_in_javascript(server: RealServer):
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules").is_dir():
        pytest.skip("`make clients` installs this client, if there is Node")
    said = json.loads(run([node, HERE / "ai_sdk_client.js", server.url, server.model]).splitlines()[-1])
    assert said["answers"] == [ANSWER] * 5
    assert said["usage"] == [8, 8]
    assert said["finishReason"] == "stop"
    assert said["structured"] == CITY
    assert said["toolResults"] == [{"input": CITY, "output": "Rain in Paris"}]


def test_lm_eval_finds_the_likelihoods_of_float32(server: RealServer, demo_model: Path, tmp_path: Path):
    """The harness itself, with nothing but local files, compared item by item."""
    if not PYTHON.is_file():
        pytest.skip("`make clients` installs lm-eval")
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from loglikelihoods import QUESTIONS, TOLERANCE, true_likelihoods

    task = (HERE / "tasks" / "questions.yaml").read_text().replace("QUESTIONS", str(QUESTIONS))
    (tmp_path / "questions.yaml").write_text(task)
    model = f"model={server.model},base_url={server.url}/v1/completions,tokenizer_backend=remote,num_concurrent=2"
    run(
        [
            *(PYTHON, "-m", "lm_eval", "--model", "local-completions", "--model_args", model),
            *("--batch_size", "4", "--include_path", tmp_path, "--tasks", "questions"),
            *("--log_samples", "--output_path", tmp_path / "out"),
        ],
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_HOME=str(tmp_path / "cache"),
    )
    (samples,) = tmp_path.glob("out/*/samples_questions_*.jsonl")
    rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: row["doc_id"])
    found = [(float(answer[0][0]), answer[0][1] == "True") for row in rows for answer in row["resps"]]
    truths = true_likelihoods(demo_model)
    for (loglikelihood, is_greedy), truth in zip(found, truths, strict=True):
        assert loglikelihood == pytest.approx(truth.loglikelihood, abs=TOLERANCE)
        assert is_greedy == truth.is_greedy or truth.margin < TOLERANCE
    right = [row["acc"] for row in rows]
    assert sum(right) > len(right) / 2  # the demo model knows most of them

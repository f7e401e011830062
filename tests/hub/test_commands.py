"""`pull`, `serve`, `chat` and `inspect` with a NAME: real processes, a hub on this machine, the real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from fake_hub import FakeHub, fake_hub, unreachable
from patience import PATIENCE
from tiny_folders import write_random_folder, write_random_gguf

ANTIPHON = [sys.executable, "-m", "antiphon"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory):
    """A hub with a folder and two GGUF files."""
    folder = tmp_path_factory.mktemp("upload")
    write_random_folder(folder / "tiny", "qwen2")
    files = {path.name: path.read_bytes() for path in (folder / "tiny").iterdir()}
    ggufs = {f"tiny-{kind}.gguf": write_random_gguf(folder / kind, "qwen2", type=kind) for kind in ("F16", "F32")}
    with fake_hub(org__tiny=files, org__tiny_GGUF={name: path.read_bytes() for name, path in ggufs.items()}) as hub:
        yield hub


def environment(hub: FakeHub, cache: Path) -> dict[str, str]:
    return os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_TOKEN": ""}


def antiphon(hub: FakeHub, cache: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ANTIPHON, *arguments],
        env=environment(hub, cache),
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_pull_prints_where_the_model_lies(hub, tmp_path):
    reply = antiphon(hub, tmp_path, "pull", "org/tiny_GGUF:F32")
    assert (reply.returncode, reply.stdout.count("\n")) == (0, 1)
    assert Path(reply.stdout.strip()).read_bytes() == hub.repositories["org/tiny_GGUF"]["tiny-F32.gguf"]
    assert "Downloading org/tiny_GGUF:F32: tiny-F32.gguf" in reply.stderr
    again = antiphon(hub, tmp_path, "pull", "org/tiny_GGUF:F32")
    assert (again.stdout, again.stderr) == (reply.stdout, "")


def test_what_goes_wrong_is_one_line(hub, tmp_path):
    reply = antiphon(hub, tmp_path, "pull", "org/tiny_GGUF:Q4_0")
    assert reply.returncode == 1
    assert reply.stderr == "error: org/tiny_GGUF has no GGUF file of type 'Q4_0'; there are F16, F32\n"


def test_inspect_by_name(hub, tmp_path):
    reply = antiphon(hub, tmp_path, "inspect", "org/tiny", "--json")
    report = json.loads(reply.stdout)
    assert report["name"] == "tiny"
    assert report["format"] == "safetensors"


def test_a_question_to_a_model_by_name(hub, tmp_path):
    reply = antiphon(hub, tmp_path, "chat", "-hf", "org/tiny_GGUF:F16", "--max-tokens", "3", typed="Hello")
    assert reply.returncode == 0, reply.stderr


@pytest.mark.parametrize(
    ("typed", "called"), [("org/tiny", "tiny"), ("hf://org/tiny_GGUF:f16", "tiny-F16")], ids=["folder", "gguf"]
)
def test_serve_brings_the_model_and_answers_to_both_its_names(hub, tmp_path, typed, called):
    command = [*ANTIPHON, "serve", typed, "--port", "0", "--threads", "1"]
    # Nothing but what is on this disk is needed the second time.
    for endpoint in (hub.url, unreachable()):
        env = environment(hub, tmp_path) | {"HF_ENDPOINT": endpoint}
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("curl "), process.stderr and process.stderr.read()
                url = line.split()[1].removesuffix("/chat/completions")
                check_names(url, typed, called)
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()


def check_names(url: str, typed: str, called: str) -> None:
    with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        assert [model["id"] for model in client.get("/models").json()["data"]] == [called]
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
        for name in (typed, called):
            answer = client.post("/chat/completions", json=body | {"model": name})
            assert answer.status_code == 200
            assert answer.json()["model"] == called
        assert client.post("/chat/completions", json=body | {"model": "other"}).status_code == 404

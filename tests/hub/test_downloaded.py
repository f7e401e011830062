"""What was downloaded: listed by names that can be typed, removed without harm to what shares files with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from typer.testing import CliRunner

from antiphon.cli import app
from antiphon.errors import HubError
from antiphon.hub import ModelName, parse_name, pull
from antiphon.hub.downloaded import downloaded_models, plan_removal

GGUFS = {"m-Q8_0.gguf": b"GGUF" * 40, "m-F16.gguf": b"GGUF" * 90, "mmproj-m.gguf": b"GGUF"}
FOLDER = {"config.json": b"{}", "model.safetensors": b"x" * 300, "tokenizer.json": b"[]"}
PARTS = {f"s-0000{number}-of-00002.gguf": b"GGUF" * number for number in (1, 2)}


class Silent:
    """Fulfils `Watcher`."""

    def begin(self, *_: Any) -> None: ...
    def gained(self, count: int) -> None: ...
    def note(self, text: str) -> None: ...


def bring(typed: str) -> Path:
    return pull(named(typed), offline=False, watcher=Silent()).path


def named(typed: str) -> ModelName:
    name = parse_name(typed, "huggingface")
    assert name is not None
    return name


def run(*arguments: str, typed: str = "") -> Any:
    return CliRunner().invoke(app, ["models", *arguments], input=typed)


@pytest.fixture
def downloads(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    hub.repositories.update({"org/ggufs": GGUFS, "org/folder": FOLDER, "org/split": PARTS})
    names = ("org/ggufs/m-Q8_0.gguf", "org/ggufs/m-F16.gguf", "org/folder", "org/split/s-00001-of-00002.gguf")
    return {name: bring(name) for name in names}


def test_every_model_is_listed_by_a_name_that_means_it(downloads):
    found = {model.name: model for model in downloaded_models()}
    assert found.keys() == downloads.keys()
    assert {name: model.path for name, model in found.items()} == downloads
    assert found["org/ggufs/m-F16.gguf"].size == 360
    assert found["org/split/s-00001-of-00002.gguf"].size == 4 + 8
    for name in found:
        assert pull(named(name), offline=True, watcher=Silent()).path == downloads[name]


def test_the_list_is_for_people_and_for_programs(downloads, tmp_path):
    text = run().stdout
    assert "org/ggufs/m-F16.gguf" in text
    listed = json.loads(run("--json").stdout)
    assert [model["name"] for model in listed] == sorted(downloads)
    assert all(model["complete"] for model in listed)


def test_nothing_was_downloaded(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    result = run()
    assert (result.exit_code, result.stdout) == (0, "")
    assert "antiphon pull" in result.stderr
    assert json.loads(run("--json").stdout) == []


@pytest.mark.parametrize("typed", ["org/ggufs:Q8_0", "org/ggufs/m-Q8_0.gguf", "ORG/GGUFS:q8_0"])
def test_one_model_of_several_is_removed_and_the_others_stay(downloads, typed):
    assert run("remove", typed, "--yes").exit_code == 0
    gone = downloads.pop("org/ggufs/m-Q8_0.gguf")
    assert not gone.exists()
    assert not gone.is_symlink()
    assert {model.name for model in downloaded_models()} == downloads.keys()
    assert all(path.exists() for path in downloads.values())


def test_with_its_last_model_a_repository_goes(downloads, cache):
    for name in ("org/ggufs/m-Q8_0.gguf", "org/ggufs:F16", "org/split/s-00001-of-00002.gguf", "org/folder"):
        removal = plan_removal(named(name))
        assert all(path.exists() for path in removal.paths)
        removal.execute()
    assert downloaded_models() == []
    assert [path.name for path in cache.glob("models--*")] == []


def test_a_file_that_another_revision_needs_stays(downloads, hub):
    """The same bytes under two commits are one file in the cache."""
    (first,) = {path.parent.name for name, path in downloads.items() if name.startswith("org/ggufs")}
    snapshots = downloads["org/ggufs/m-F16.gguf"].parent.parent
    other = snapshots / ("f" * 40)
    other.mkdir()
    (other / "m-F16.gguf").symlink_to(downloads["org/ggufs/m-F16.gguf"].readlink())
    removal = plan_removal(named(f"org/ggufs@{first}"))
    removal.execute()
    assert (other / "m-F16.gguf").read_bytes() == GGUFS["m-F16.gguf"]
    assert not (snapshots / first).exists()
    assert [model.name for model in downloaded_models() if "ggufs" in model.name] == [
        f"org/ggufs@{other.name}/m-F16.gguf"
    ]


def test_a_mirror_with_the_same_commits_is_another_repository(downloads, hub):
    """All repositories of this hub have one commit, as git makes it of equal content."""
    hub.repositories["friend/folder"] = FOLDER
    mirror = bring("friend/folder")
    for typed in ("org/folder", "org/ggufs"):
        assert run("remove", typed, "--yes").exit_code == 0
    assert (mirror / "model.safetensors").read_bytes() == FOLDER["model.safetensors"]
    assert {model.name.split("/s-")[0] for model in downloaded_models()} == {"friend/folder", "org/split"}


def test_an_unfinished_download_is_listed_and_can_be_removed(downloads, cache):
    blobs = cache / "models--org--half" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64 + ".antiphon-part")).write_bytes(b"x" * 10)
    (blobs / "notes.txt").write_text("not ours")
    (half,) = [model for model in downloaded_models() if not model.is_whole]
    assert (half.name, half.size) == ("org/half", 10)
    assert "incomplete" in run().stdout
    assert run("remove", "org/half", "-y").exit_code == 0
    assert [path.name for path in blobs.iterdir()] == ["notes.txt"]


def test_nothing_is_removed_unasked_or_in_part(downloads):
    for arguments in (
        ["org/folder"],
        ["org/folder", "org/absent", "--yes"],
        ["org/ggufs:Q2_K", "--yes"],
        ["deepseek", "-y"],
    ):
        result = run("remove", *arguments)
        assert isinstance(result.exception, HubError), arguments
    assert {model.name for model in downloaded_models()} == downloads.keys()
    assert "was not downloaded; `antiphon models` lists what was" in str(result.exception)


def test_datasets_and_repositories_without_a_model_are_left_alone(downloads, cache):
    for folder, name in (("datasets--org--ggufs", "m.gguf"), ("models--org--other", "pytorch_model.bin")):
        snapshot = cache / folder / "snapshots" / ("e" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / name).write_bytes(b"x")
    assert {model.name for model in downloaded_models()} == downloads.keys()
    assert run("remove", "org/ggufs", "--yes").exit_code == 0
    assert (cache / "datasets--org--ggufs" / "snapshots" / ("e" * 40) / "m.gguf").exists()


def test_the_demo_model_can_be_removed(downloads, tmp_path):
    from antiphon.demo import demo_path

    demo_path().parent.mkdir(parents=True)
    demo_path().write_bytes(b"GGUF")
    (demo_path().parent / "mine.gguf").write_bytes(b"GGUF")
    assert json.loads(run("--json").stdout)[0]["name"] == "demo"
    assert run("remove", "demo", "--yes").exit_code == 0
    assert [path.name for path in demo_path().parent.iterdir()] == ["mine.gguf"]

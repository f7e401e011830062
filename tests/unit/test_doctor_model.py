"""`antiphon doctor MODEL`: models that cannot be read, are cut off, do not fit or talk wrongly, and a sound one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machines import FakeMachine
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf
from tiny_folders import write_random_folder, write_random_gguf
from typer.testing import CliRunner

from antiphon.cli import app
from antiphon.doctor.examination import examine
from antiphon.doctor.findings import Finding, Level
from antiphon.doctor.host import Host
from antiphon.doctor.model import Model

_NOBODY = 65534


def examined(path: Path | str, *names: str, host: Host | None = None) -> list[Finding]:
    """The findings of these checks on a model, or of all that do not depend on this machine; no check may fail."""
    names = names or ("files", "kind", "memory", "tokenizer", "chat template")
    checks = [each for each in Model(str(path), "huggingface", host or Host()).checks() if each.name in names]
    found = [result.finding for result in examine(checks)]
    assert not [finding for finding in found if "failed" in finding.what]
    return found


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level in (Level.WARNING, Level.PROBLEM)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_folder(tmp_path_factory.mktemp("sound") / "model", "qwen2")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A Hugging Face folder that is sound, for a test to spoil."""
    return Path(shutil.copytree(original, tmp_path / "model"))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def with_template(folder: Path, template: str) -> Path:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    return folder


def test_a_sound_model_is_examined_from_its_files_to_its_template(folder):
    findings = examined(folder)
    assert bad(findings) == []
    said = "\n".join(finding.what for finding in findings)
    for words in ("qwen2", "conversations of 2,048 tokens at once", "what is encoded comes back"):
        assert words in said


def test_a_file_that_was_cut_off_is_a_problem(folder):
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)
    (found,) = bad(examined(folder))
    assert found.level is Level.PROBLEM
    assert "model.safetensors" in found.what
    assert "--verify" in found.fix


def test_a_gguf_file_that_was_cut_off_is_a_problem(tmp_path):
    path = write_random_gguf(tmp_path / "m.gguf", "qwen2")
    os.truncate(path, path.stat().st_size // 2)
    (found,) = bad(examined(path))
    assert (found.level, str(path) in found.what) == (Level.PROBLEM, True)


@pytest.mark.parametrize("name", ["nonesuch.gguf", "./nonesuch", "nobody/nothing-of-that-name"])
def test_a_model_that_is_not_here_is_a_problem_and_nothing_is_downloaded(name, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise AssertionError("something is looked up")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    (found,) = bad(examined(name))
    assert found.level is Level.PROBLEM
    assert "antiphon pull" in found.fix


def test_a_file_of_another_user_is_a_problem(folder):
    file = folder / "model.safetensors"
    file.chmod(0o000)
    for parent in file.parents[:5]:  # up to pytest's own, also where several processes test
        parent.chmod(parent.stat().st_mode | 0o055)
    with as_nobody():
        found, *_ = bad(examined(folder))
    assert found.level is Level.PROBLEM
    assert found.what.startswith(f"{file} cannot be read by user")
    assert found.fix.startswith(f"chmod -R a+rX {folder}")


def test_what_is_no_model_is_a_problem(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_text("<html>404 Not Found</html>")
    (found,) = bad(examined(path))
    assert "not a GGUF file" in found.what


def test_an_unknown_architecture_is_a_problem(folder):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["NonesuchForCausalLM"]}))
    (found,) = bad(examined(folder, "kind"))
    assert "Nonesuch" in found.what


def test_a_model_that_does_not_fit_is_a_problem(folder, tmp_path):
    machine = FakeMachine(tmp_path / "machine")
    machine.memory(total=1 << 30, available=200 << 20)
    (found,) = bad(examined(folder, "memory", host=Host(machine.root, frozenset({0}))))
    assert found.level is Level.PROBLEM
    assert "not enough memory" in found.what
    assert "200 MiB are free" in found.what


def test_a_model_for_few_users_is_a_warning(folder, tmp_path):
    machine = FakeMachine(tmp_path / "machine")
    machine.memory(total=1 << 30, available=287 << 20)
    (found,) = bad(examined(folder, "memory", host=Host(machine.root, frozenset({0}))))
    assert found.level is Level.WARNING
    assert "conversations of 2,048 tokens at once" in found.what


@pytest.mark.parametrize(
    ("template", "level", "says"),
    [
        ("{{ nonsense", "problem", "chat is refused"),
        ("{{ messages.__class__.__mro__ }}", "problem", "a plain question does not go through"),
        (CHATML_TEMPLATE.partition("{% if add")[0], "warning", "no generation prompt"),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML_TEMPLATE,
         "warning", "the chat template refuses a system message"),
        ("{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}" + CHATML_TEMPLATE,
         "warning", "the chat template refuses a second question"),
    ],
)  # fmt: skip
def test_a_template_that_is_wrong_is_told_with_its_remedy(folder, template, level, says):
    found = bad(examined(with_template(folder, template), "chat template"))
    assert [says in finding.what for finding in found if finding.level == level].count(True) == 1
    assert all(finding.why and finding.fix for finding in found)


def test_a_tokenizer_that_cannot_be_used_is_a_problem(tmp_path):
    (found,) = bad(examined(write_gguf(tmp_path / "m.gguf", metadata(pre="nonesuch")), "tokenizer", "chat template"))
    assert found.level is Level.PROBLEM
    assert "pre-tokenizer 'nonesuch'" in found.what
    assert "Text cannot become tokens" in found.why


def test_the_command_examines_the_machine_and_the_model(folder):
    file = folder / "model.safetensors"
    os.truncate(file, 10)
    result = CliRunner().invoke(app, ["doctor", str(folder), "--json"], env={"ANTIPHON_PORT": "0"})
    assert result.exit_code == 1
    subjects = {finding["subject"] for finding in json.loads(result.output)["findings"]}
    assert {"processor", "memory", "model"} <= subjects
    assert "the model is on" in result.output  # a file system

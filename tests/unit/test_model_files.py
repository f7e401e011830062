"""A model's files are held as they were when they were opened; those that changed are refused by name."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_folders import write_random_folder, write_random_gguf

from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.model_files import ModelFiles


def inherited(files: ModelFiles) -> ModelFiles:
    """As another process has them: descriptors of its own for the same files."""
    return ModelFiles([replace(file, fd=os.dup(file.fd)) for file in files.opened])


def contents(checkpoint: object) -> object:
    return checkpoint, {name: bytes(tensor.read()) for name, tensor in checkpoint.tensors.items()}


def without_reads(seen: tuple[object, dict[str, bytes]]) -> object:
    checkpoint, data = seen
    return replace(checkpoint, tensors={}), data


def same(a: object, b: object) -> bool:
    return without_reads(contents(a)) == without_reads(contents(b))


@pytest.fixture(params=["gguf", "folder"])
def model(request, tmp_path) -> Path:
    if request.param == "gguf":
        return write_random_gguf(tmp_path / "m.gguf", "qwen2")
    return write_random_folder(tmp_path / "m", "qwen2")


def other(model: Path) -> Path:
    """Another model of the same shape beside it."""
    if model.is_dir():
        return write_random_folder(model.with_name("other"), "qwen2", seed=1, rope_theta=5e5)
    return write_random_gguf(model.with_name("other.gguf"), "qwen2", seed=1, rope_theta=5e5)


def weights_of(model: Path) -> Path:
    return model / "model.safetensors" if model.is_dir() else model


def replace_all(model: Path) -> None:
    """Put every file of another model in the place of this one's."""
    theirs = other(model)
    for file in theirs.iterdir() if model.is_dir() else [theirs]:
        os.replace(file, model / file.name if model.is_dir() else model)  # the fault by its name


def delete(model: Path) -> None:
    shutil.rmtree(model) if model.is_dir() else model.unlink()


@pytest.mark.parametrize("fault", [replace_all, delete])
def test_files_that_were_replaced_or_deleted_are_read_as_they_were(model, fault):
    first = open_checkpoint(model)
    before = contents(first)
    fault(model)
    again = open_checkpoint(model, inherited(first.files))
    assert without_reads(contents(again)) == without_reads(before)
    if model.exists():
        assert not same(first, open_checkpoint(model))  # the fault did change the model


def write_in_place(model: Path) -> None:
    with weights_of(model).open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(bytes(range(64)))


def cut_short(model: Path) -> None:
    os.truncate(weights_of(model), weights_of(model).stat().st_size // 2)


def append(model: Path) -> None:
    with weights_of(model).open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("fault", "what"), [(write_in_place, "was written to"), (cut_short, "now has"), (append, "now has")]
)
def test_files_that_were_written_to_or_cut_short_are_refused_by_name(model, fault, what):
    first = open_checkpoint(model)
    first.files.check_unchanged()
    fault(model)
    with pytest.raises(CheckpointError, match=rf"{weights_of(model).name}: the file has changed .*{what}"):
        open_checkpoint(model, inherited(first.files))
    with pytest.raises(CheckpointError, match=what):
        first.files.check_unchanged()


def test_a_small_file_of_a_folder_counts_as_much_as_the_weights(tmp_path):
    folder = write_random_folder(tmp_path / "m", "qwen2")
    files = open_checkpoint(folder).files
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("10000", "20000"))
    with pytest.raises(CheckpointError, match=r"config\.json: the file has changed"):
        open_checkpoint(folder, inherited(files))


def test_a_file_that_came_later_is_not_there(tmp_path):
    """A template or advice that appears in the folder would otherwise be half of another model."""
    folder = write_random_folder(tmp_path / "m", "qwen2")
    (folder / "generation_config.json").unlink()
    first = open_checkpoint(folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.1}')
    (folder / "chat_template.jinja").write_text("{{ 'new' }}")
    again = open_checkpoint(folder, inherited(first.files))
    assert (again.generation_defaults, again.chat_template) == (first.generation_defaults, first.chat_template)
    with pytest.raises(CheckpointError, match="did not exist when the model was opened"):
        inherited(first.files).open(folder / "generation_config.json")


def test_a_descriptor_that_means_another_file_is_refused(model):
    files = open_checkpoint(model).files
    stranger = os.open(other(model) if model.is_file() else __file__, os.O_RDONLY)
    given = ModelFiles([replace(files.opened[0], fd=stranger), *files.opened[1:]])
    with pytest.raises(CheckpointError, match="belongs to another file"):
        open_checkpoint(model, given)


def test_a_descriptor_that_is_closed_is_refused(model):
    first = open_checkpoint(model)
    given = first.files.opened
    first.files.close()
    with pytest.raises(CheckpointError, match="cannot be read any more"):
        open_checkpoint(model, ModelFiles(given))


def test_a_file_that_is_cut_short_before_it_is_mapped_is_refused(tmp_path):
    path = write_random_gguf(tmp_path / "m.gguf", "qwen2")
    files = ModelFiles()
    files.open(path)
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match="now has 100"):
        open_checkpoint(path, files)


@pytest.mark.parametrize("let_go", [ModelFiles.close, lambda files: None], ids=["closed", "dropped"])
def test_files_that_nobody_holds_are_closed(tmp_path, let_go: Callable[[ModelFiles], None]):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    files = ModelFiles()
    fd = files.open(path).fd
    assert files.open(path).fd == fd
    assert (files.read(path, 2), files.read(path, 9)) == (b"ab", b"abc")
    let_go(files)
    del files
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        ModelFiles().open(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        open_checkpoint(tmp_path / "pipe")


def test_programs_that_are_started_do_not_get_the_files(model):
    checkpoint = open_checkpoint(model)
    assert checkpoint.files.opened
    assert not any(os.get_inheritable(file.fd) for file in checkpoint.files.opened)

"""Two machines have the same model if all files that the engine reads have the same contents, wherever they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from antiphon.errors import CheckpointError
from antiphon.model_digest import Digests, check_same_model, named_files
from antiphon.model_files import ModelFile, ModelFiles


def opened(folder: Path, **contents: bytes) -> tuple[ModelFiles, tuple[ModelFile, ...]]:
    folder.mkdir(exist_ok=True)
    files = ModelFiles()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        files.open(folder / name)
    return files, files.opened


def digests_of(model: Path, files: tuple[ModelFile, ...]) -> dict[str, str]:
    return {name: Digests().of(file) for name, file in named_files(str(model), files).items()}


def test_a_digest_is_the_sha_256_of_the_contents_and_computed_once(tmp_path):
    _keep, (file,) = opened(tmp_path, model=b"x" * 3_000_000)
    digests, parts = Digests(), []
    expected = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    for _ in range(2):
        assert digests.of(file, lambda: parts.append(1)) == expected
    assert len(parts) == 3


def test_a_file_that_has_changed_since_it_was_opened_has_no_digest(tmp_path):
    _keep, (file,) = opened(tmp_path, model=b"x")
    digests = Digests()
    digests.of(file)
    (tmp_path / "model").write_bytes(b"xx")
    with pytest.raises(CheckpointError, match="has changed"):
        digests.of(file)


def test_a_model_of_one_file_may_have_any_name(tmp_path):
    _here, mine = opened(tmp_path / "a", one=b"same")
    _there, theirs = opened(tmp_path / "b", other=b"same")
    expected = digests_of(tmp_path / "a" / "one", mine)
    check_same_model(expected, str(tmp_path / "b" / "other"), theirs, Digests())


def test_a_file_that_differs_or_is_missing_there_is_named(tmp_path):
    _here, mine = opened(tmp_path / "a", config=b"{}", weights=b"1", tokenizer=b"only the server needs it")
    expected = digests_of(tmp_path / "a", mine)
    _same, same = opened(tmp_path / "b", config=b"{}", weights=b"1")
    check_same_model(expected, str(tmp_path / "b"), same, Digests())
    _other, other = opened(tmp_path / "c", config=b"{}", weights=b"2")
    with pytest.raises(CheckpointError, match=r"c/weights: differs from the server's"):
        check_same_model(expected, str(tmp_path / "c"), other, Digests())
    _more, more = opened(tmp_path / "d", config=b"{}", more=b"")
    with pytest.raises(CheckpointError, match=r"d/more: the server's model has no such file"):
        check_same_model(expected, str(tmp_path / "d"), more, Digests())

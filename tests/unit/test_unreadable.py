"""A model's file that cannot be read: whose fault it is decides whether another try makes sense."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from open_files import no_descriptor_left
from tiny_checkpoints import metadata, write_gguf
from tiny_folders import write_random_folder

from antiphon.errors import CheckpointError, ConfigError, NotEnoughMemory
from antiphon.formats import open_checkpoint
from antiphon.model_files import unreadable


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, CheckpointError),
        (errno.EACCES, CheckpointError),
        (errno.EISDIR, CheckpointError),
        (errno.ENOMEM, NotEnoughMemory),
        (errno.EMFILE, ConfigError),
        (errno.ESTALE, ConfigError),
    ],
)
def test_what_may_pass_is_not_the_models_fault(number, kind):
    error = unreadable(Path("m.gguf"), OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert error.message == f"m.gguf: cannot be read ({os.strerror(number)})"


@pytest.mark.parametrize("form", ["gguf", "folder"])
def test_a_model_is_not_given_up_for_want_of_descriptors(tmp_path, form):
    if form == "gguf":
        path = write_gguf(tmp_path / "m.gguf", metadata())
    else:
        path = write_random_folder(tmp_path / "m", "qwen2")
    open_checkpoint(path)
    with no_descriptor_left(), pytest.raises(ConfigError, match="Too many open files"):
        open_checkpoint(path)

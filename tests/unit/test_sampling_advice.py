"""What a publisher advises is what a request could ask for, in either format; the rest is ignored with a note."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_checkpoints import metadata, write_gguf, write_hugging_face

from antiphon.api.completions.request import CompletionRequest
from antiphon.checkpoint import Checkpoint
from antiphon.formats import gguf_checkpoint, open_checkpoint

FAIR = [
    ("temperature", 0.0),
    ("temperature", 2.0),
    ("top_p", 1.0),
    ("min_p", 0.0),
    ("min_p", 1.0),
    ("repetition_penalty", 0.0101),
    ("repetition_penalty", 10.0),
    ("top_k", 2**31 - 1),
]
UNFAIR = [
    ("temperature", -0.5),
    ("temperature", 2.5),
    ("temperature", float("nan")),
    ("top_p", 0.0),
    ("top_p", 1.5),
    ("min_p", -0.5),
    ("min_p", 1.5),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", 1e-40),
    ("repetition_penalty", 10.5),
    ("top_k", -2),
    ("top_k", 2**31),
    ("top_k", 0.5),
]


def advised(folder: Path, form: str, name: str, value: object) -> Checkpoint:
    if form == "gguf":
        written = struct.pack("<Ii", 5, value) if isinstance(value, int) and value < 0 else value
        fields = metadata() | {gguf_checkpoint.SAMPLING_KEYS[name]: written}
        return open_checkpoint(write_gguf(folder / "m.gguf", fields))
    model = write_hugging_face(folder / "model")
    (model / "generation_config.json").write_text(json.dumps({name: value}))
    return open_checkpoint(model)


@pytest.mark.parametrize("form", ["gguf", "hugging_face"])
@pytest.mark.parametrize(("name", "value"), FAIR)
def test_advice_that_a_request_could_give_is_taken(tmp_path: Path, form: str, name: str, value: float):
    CompletionRequest.model_validate({"prompt": "Hello", name: value})
    checkpoint = advised(tmp_path, form, name, value)
    assert checkpoint.generation_defaults == {name: pytest.approx(value)}
    assert checkpoint.notes == ()


@pytest.mark.parametrize("form", ["gguf", "hugging_face"])
@pytest.mark.parametrize(("name", "value"), UNFAIR)
def test_advice_that_no_request_could_give_is_ignored_with_a_note(tmp_path: Path, form: str, name: str, value: float):
    with pytest.raises(ValidationError):
        CompletionRequest.model_validate({"prompt": "Hello", name: value})
    theirs = gguf_checkpoint.SAMPLING_KEYS[name] if form == "gguf" else name
    checkpoint = advised(tmp_path, form, name, value)
    assert checkpoint.generation_defaults == {}
    (note,) = checkpoint.notes
    assert f"'{theirs}'" in note.wrong
    assert note.done == "this advice is ignored"


@pytest.mark.parametrize("value", ["warm", [0.6], True, {"t": 1}])
def test_advice_that_is_no_number_is_ignored_with_a_note(tmp_path: Path, value: object):
    checkpoint = advised(tmp_path, "hugging_face", "temperature", value)
    assert checkpoint.generation_defaults == {}
    assert "'temperature' must be a number" in checkpoint.notes[0].wrong


@pytest.mark.parametrize("form", ["gguf", "hugging_face"])
@pytest.mark.parametrize("value", [0, -1])
def test_no_top_k_is_written_in_two_ways(tmp_path: Path, form: str, value: int):
    assert advised(tmp_path, form, "top_k", value).generation_defaults == {"top_k": 0}

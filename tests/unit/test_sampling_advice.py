"""What a publisher advises is what a request could ask for, in either format; the rest is refused by name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_checkpoints import metadata, write_gguf, write_hugging_face

from antiphon.api.completions.request import CompletionRequest
from antiphon.errors import CheckpointError
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


def advised(folder: Path, form: str, name: str, value: float) -> dict[str, float | int]:
    if form == "gguf":
        written = struct.pack("<Ii", 5, value) if value < 0 and isinstance(value, int) else value
        fields = metadata() | {gguf_checkpoint.SAMPLING_KEYS[name]: written}
        return dict(open_checkpoint(write_gguf(folder / "m.gguf", fields)).generation_defaults)
    model = write_hugging_face(folder / "model")
    (model / "generation_config.json").write_text(json.dumps({name: value}))
    return dict(open_checkpoint(model).generation_defaults)


@pytest.mark.parametrize("form", ["gguf", "hugging_face"])
@pytest.mark.parametrize(("name", "value"), FAIR)
def test_advice_that_a_request_could_give_is_taken(tmp_path: Path, form: str, name: str, value: float):
    CompletionRequest.model_validate({"prompt": "Hello", name: value})
    assert advised(tmp_path, form, name, value) == {name: pytest.approx(value)}


@pytest.mark.parametrize("form", ["gguf", "hugging_face"])
@pytest.mark.parametrize(("name", "value"), UNFAIR)
def test_advice_that_no_request_could_give_is_named(tmp_path: Path, form: str, name: str, value: float):
    with pytest.raises(ValidationError):
        CompletionRequest.model_validate({"prompt": "Hello", name: value})
    theirs = gguf_checkpoint.SAMPLING_KEYS[name] if form == "gguf" else name
    with pytest.raises(CheckpointError, match=f"'{theirs}'"):
        advised(tmp_path, form, name, value)


@pytest.mark.parametrize("form", ["gguf", "hugging_face"])
@pytest.mark.parametrize("value", [0, -1])
def test_no_top_k_is_written_in_two_ways(tmp_path: Path, form: str, value: int):
    assert advised(tmp_path, form, "top_k", value) == {"top_k": 0}

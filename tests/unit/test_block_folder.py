"""Folders of blocks whose config.json and tensors disagree: one clear error each, and nothing read."""

from __future__ import annotations

import json

import pytest
from tiny_checkpoints import write_safetensors
from tiny_folders import write_random_folder

from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint

NAME = "model.layers.0.mlp.up_proj.weight"


def folder_with(tmp_path, types: object, dtype: str = "U8", shape: tuple[int, ...] = (160, 60), size: int = 9600):
    """A sound folder but for one tensor and what config.json says of types."""
    folder = write_random_folder(tmp_path / "model", "llama")
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header[NAME] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + size]}
    write_safetensors(folder / "model.safetensors", header, body + bytes(size))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "antiphon", "types": types}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_blocks_are_found(tmp_path):
    tensor = open_checkpoint(folder_with(tmp_path, {NAME: "Q4_1"})).tensors[NAME]
    assert (tensor.type, tensor.shape, tensor.num_bytes) == ("Q4_1", (160, 96), 9600)


@pytest.mark.parametrize(
    ("types", "stored", "message"),
    [
        (None, {}, "must map tensor names to types"),
        ([NAME], {}, "must map tensor names to types"),
        ({"absent": "Q4_1"}, {}, "'absent' is missing"),
        ({NAME: "Q9"}, {}, "'Q9' is not a type of blocks"),
        ({NAME: "F16"}, {}, "'F16' is not a type of blocks"),
        ({NAME: ["Q4_1"]}, {}, "is not a type of blocks"),
        ({NAME: "Q8_0"}, {}, "does not hold rows of Q8_0"),
        ({NAME: "Q4_1"}, {"shape": (9600,)}, "does not hold rows of Q4_1"),
        ({NAME: "Q4_1"}, {"dtype": "F32", "size": 38400}, "does not hold rows of Q4_1"),
        ({}, {}, "is U8, and config.json names no type"),
    ],
)
def test_what_disagrees_is_refused_by_name(tmp_path, types, stored, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder_with(tmp_path, types, **stored))


def test_bytes_mean_nothing_in_other_folders(tmp_path):
    folder = folder_with(tmp_path, {NAME: "Q4_1"})
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="type U8 is not supported"):
        open_checkpoint(folder)

#!/usr/bin/env python3
"""A Hugging Face folder's weights in 8 bits, as compressed-tensors stores W8A8: what vLLM runs fastest on a CPU.

    python benchmarks/w8a8_folder.py FOLDER OUT

For side_by_side.py, which wants the strongest peer. Every projection of the layers is rounded to int8 with one scale
for each row; embedding, head, norms and biases stay as they are; activations are to be quantized by whoever runs it, a
token at a time. That is what `llm-compressor` writes without calibration. FOLDER has one `model.safetensors` in
bfloat16, and all other files are copied.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SUFFIX = "_proj.weight"  # of a matrix that is quantized
QUANTIZED = {"num_bits": 8, "type": "int", "symmetric": True}
SETTINGS = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**QUANTIZED, "strategy": "channel", "dynamic": False},
            "input_activations": {**QUANTIZED, "strategy": "token", "dynamic": True},
        }
    },
}
Part = tuple[str, str, list[int], bytes]  # name, type, shape, bytes


def read_safetensors(path: Path) -> tuple[dict[str, Any], np.memmap[Any, Any]]:
    """The header's entries, and the bytes that they point into."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, np.memmap(path, np.uint8, "r", 8 + length)


def quantize(bits: np.ndarray, shape: list[int]) -> tuple[bytes, bytes]:
    """Codes and scales (bfloat16, one a row) of a matrix given as bfloat16's bits."""
    values = (bits.astype(np.uint32) << 16).view(np.float32).reshape(shape)
    scales = np.maximum(np.abs(values).max(1, keepdims=True) / 127, 1e-8).astype(np.float32)
    scales = ((scales.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)
    codes = np.rint(values / scales).clip(-128, 127).astype(np.int8)
    return codes.tobytes(), (scales.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def parts_of(name: str, about: dict[str, Any], data: np.ndarray) -> Iterator[Part]:
    if not name.endswith(SUFFIX):
        yield name, about["dtype"], about["shape"], data.tobytes()
        return
    assert about["dtype"] == "BF16", f"{name} is {about['dtype']}; a folder in bfloat16 is wanted"
    codes, scales = quantize(data.view(np.uint16), about["shape"])
    yield name, "I8", about["shape"], codes
    yield f"{name}_scale", "BF16", [about["shape"][0], 1], scales


def write_safetensors(path: Path, header: dict[str, Any], data: np.ndarray) -> None:
    """All tensors anew. Their bytes go to a file first, since the header before them has their places."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body, end = path.with_suffix(".body"), 0
    with body.open("wb") as file:
        for name, about in header.items():
            for part, kind, shape, stored in parts_of(name, about, data[slice(*about["data_offsets"])]):
                entries[part] = {"dtype": kind, "shape": shape, "data_offsets": [end, end := end + len(stored)]}
                file.write(stored)
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file, body.open("rb") as stored_bytes:
        file.write(struct.pack("<Q", len(head)) + head)
        shutil.copyfileobj(stored_bytes, file, 1 << 24)
    body.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    weights = "model.safetensors"
    shutil.copytree(arguments.folder, arguments.out, ignore=shutil.ignore_patterns(weights))
    config = json.loads((arguments.folder / "config.json").read_text())
    config["quantization_config"] = SETTINGS
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_safetensors(arguments.out / weights, *read_safetensors(arguments.folder / weights))


if __name__ == "__main__":
    main()

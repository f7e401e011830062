"""Split GGUF files: any part opens the whole, and parts that do not belong together are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import F32, metadata, write_gguf

from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint

NAMES = [["token_embd.weight", "a"], ["b"], ["output.weight", "c"]]


def part_path(folder: Path, number: int, count: int = 3) -> Path:
    return folder / f"tiny-{number:05d}-of-{count:05d}.gguf"


def write_part(folder: Path, number: int, names: list[str] | None = None, **fields: Any) -> Path:
    """Part `number`, from 1 on, as splitting tools write it; `fields` overrule `split.…`, None taking one away."""
    own = {"no": number - 1, "count": 3, "tensors_count": 5} | fields
    full = {f"split.{key.replace('_', '.')}": value for key, value in own.items() if value is not None}
    tensors = [(name, (4,), F32, name.encode().ljust(16, b"\0")[:16]) for name in names or NAMES[number - 1]]
    return write_gguf(part_path(folder, number), (metadata() if number == 1 else {}) | full, tensors)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        write_part(tmp_path, number)
    return tmp_path


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_part_opens_the_whole(folder: Path, number: int) -> None:
    checkpoint = open_checkpoint(part_path(folder, number))
    assert checkpoint.name == "Tiny"
    assert not checkpoint.settings["tie_word_embeddings"]  # the head is in the third part
    assert list(checkpoint.tensors) == [name for names in NAMES for name in names]
    assert bytes(checkpoint.tensors["b"].read())[:1] == b"b"


def test_parts_as_other_tools_write_them(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "qwen2", split_max_tensors=2)
    for key, value in metadata().items():
        if key != "general.architecture":
            writer.add_key_value(key, value, _value_type(gguf.GGUFValueType, value), _element_type(gguf, value))
    values = {name: numpy.arange(4, dtype=numpy.float32) + i for i, name in enumerate("abcde")}
    for name, value in values.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = open_checkpoint(part_path(tmp_path, 2)).tensors
    assert {name: bytes(tensor.read()) for name, tensor in tensors.items()} == {
        name: value.tobytes() for name, value in values.items()
    }


def _value_type(kinds: Any, value: Any) -> Any:
    names = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING", list: "ARRAY"}
    return kinds[names[type(value)]]


def _element_type(gguf: Any, value: Any) -> Any:
    if not isinstance(value, list):
        return None
    return gguf.GGUFValueType.STRING if isinstance(value[0], str) else gguf.GGUFValueType.INT32


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_missing_part_is_named(folder: Path, number: int) -> None:
    part_path(folder, number).unlink()
    with pytest.raises(CheckpointError, match=rf"tiny-0000{number}-of-00003.gguf: part {number} of 3 is missing"):
        open_checkpoint(part_path(folder, 2 if number == 1 else 1))


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (2, {"no": 2}, "00002-of-00003.gguf: field 'split.no' is 2, but by its name it is 1"),
        (2, {"count": 4}, "00002-of-00003.gguf: field 'split.count' is 4, but by its name it is 3"),
        (3, {"no": None}, "00003-of-00003.gguf: the required field 'split.no' is missing"),
        (3, {"count": None}, "00003-of-00003.gguf: the required field 'split.count' is missing"),
        (1, {"tensors_count": 6}, "its parts have 5 tensors together, but 'split.tensors.count' is 6"),
        (1, {"count": 1 << 20}, "'split.count' is 1048576; it must be from 0 to 1024"),
        (1, {"count": 2}, r"split into 2; its name must end in '-NNNNN-of-00002.gguf'"),
        (3, {"names": ["b"]}, "00003-of-00003.gguf: tensor 'b' is in an earlier part too"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(
    folder: Path, number: int, changes: dict[str, Any], message: str
) -> None:
    write_part(folder, number, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(part_path(folder, 1))


def test_a_renamed_part_is_told_what_its_name_must_be(folder: Path) -> None:
    alone = part_path(folder, 2).rename(folder / "model.gguf")
    with pytest.raises(CheckpointError, match=r"model.gguf: is a part of a model split into 3; its name must end in"):
        open_checkpoint(alone)
    with pytest.raises(CheckpointError, match=r"00002-of-00003\.gguf: part 2 of 3 is missing"):
        open_checkpoint(part_path(folder, 1))


def test_a_damaged_part_is_named(folder: Path) -> None:
    path = part_path(folder, 3)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"00003-of-00003.gguf: .* truncated"):
        open_checkpoint(part_path(folder, 1))

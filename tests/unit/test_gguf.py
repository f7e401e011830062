"""GGUF files: what a sound one says, and that every unsound one is refused by name, cheaply."""

import os
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property_tests import examples
from tiny_checkpoints import BF16, F32, Q2_K, Q4_0, metadata, packed, write_gguf

from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.formats.gguf import read_gguf
from antiphon.model_files import ModelFiles

U64 = struct.Struct("<Q")


def test_the_demo_models_settings(demo_model: Path) -> None:
    checkpoint = open_checkpoint(demo_model)
    assert (checkpoint.format, checkpoint.architecture) == ("gguf", "llama")
    assert checkpoint.settings == {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49152,
        "rms_norm_eps": pytest.approx(1e-5),
        "rope_theta": 100_000.0,
        "max_position_embeddings": 8192,
        "rope_scaling": None,
        "tie_word_embeddings": True,
    }
    assert checkpoint.tokenizer.eos_token_ids == (2, 0, 4)  # <|im_end|>; <|endoftext|>, <reponame>
    assert not checkpoint.tokenizer.add_bos
    assert checkpoint.chat_template is not None
    assert len(checkpoint.tensors) == 272


def test_tensors_are_located_and_shaped_row_major(demo_model: Path) -> None:
    gguf = pytest.importorskip("gguf")
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(demo_model).tensors}
    ours = open_checkpoint(demo_model).tensors
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert list(tensor.shape) == list(reversed(theirs[name].shape.tolist()))
        data = tensor.read()
        assert data.readonly
        assert len(data) == tensor.num_bytes == theirs[name].n_bytes
        assert bytes(data[:64]) == theirs[name].data.tobytes()[:64]


@pytest.mark.parametrize("version", [2, 3])
def test_a_small_file_says_what_was_written(tmp_path: Path, version: int) -> None:
    data = bytes(range(36))
    path = write_gguf(tmp_path / "m.gguf", metadata(), [("blk.0.w", (2, 32), Q4_0, data)], version=version)
    checkpoint = open_checkpoint(path)
    assert checkpoint.name == "Tiny"
    assert checkpoint.settings["head_dim"] == 16
    assert checkpoint.tokenizer.add_bos
    assert bytes(checkpoint.tensors["blk.0.w"].read()) == data


def test_sampling_advice_and_a_second_end_token_are_kept(tmp_path: Path) -> None:
    fields = metadata() | {
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
        "tokenizer.ggml.eot_token_id": 3,
        "general.alignment": 64,
    }
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", fields, alignment=64))
    assert checkpoint.generation_defaults == {"temperature": pytest.approx(0.6), "top_k": 20}
    assert checkpoint.tokenizer.eos_token_ids[:2] == (fields["tokenizer.ggml.eos_token_id"], 3)


def test_what_is_no_checkpoint_is_told_what_would_work(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "zip").write_bytes(b"PK\x03\x04....")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("missing", "no such file"),
        ("empty", "not a GGUF"),
        ("zip", "not a GGUF"),
        ("pipe", "not a regular file"),
        ("", "config.json"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path / name)


WEIGHT = ("w", (4,), F32, bytes(16))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([("w", (1, 1, 1, 1, 4), F32, bytes(16))], "'w' has 5 dimensions"),
        ([("w", (), F32, bytes(16))], "'w' has 0 dimensions"),
        ([("w", (0, 4), F32, b"")], "'w': its shape .* is empty"),
        ([("w", (1 << 62, 1 << 62), F32, b"")], "'w': its shape .* more than 2\\^40"),
        ([("w", (2, 256), Q2_K, bytes(168))], "'w': Q2_K is not supported yet; use F32, F16, BF16, Q4_0"),
        ([("w", (2, 32), 77, bytes(64))], "'w': the unknown type 77"),
        ([("w", (2, 33), Q4_0, bytes(64))], "'w': its rows have 33 weights, not a multiple"),
        ([("w", (40,), BF16, bytes(16))], "'w' should be in bytes .* truncated"),
        ([WEIGHT, WEIGHT], "'w' appears twice"),
    ],
)
def test_unsound_tensors_are_named(tmp_path: Path, tensors: list[Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata(), tensors))
    assert "m.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "message"), [(16, "not a multiple of the alignment"), (0, "overlap"), (1 << 63, "should be in bytes")]
)
def test_unsound_offsets_are_named(tmp_path: Path, offset: int, message: str) -> None:
    tensors = [("v", (4,), F32, bytes(16)), WEIGHT]
    with pytest.raises(CheckpointError, match=f"'w'.*{message}"):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata(), tensors, offsets={"w": offset}))


ARRAY_OF_ARRAYS = struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 4, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (struct.pack("<I", 99), "'x' has the unknown value type 99"),
        (struct.pack("<IIQ", 9, 99, 1), "'x' has elements of the unknown value type 99"),
        (ARRAY_OF_ARRAYS, "'x' is an array of arrays"),
        (struct.pack("<IIQ", 9, 4, 1 << 60), "the length of metadata field 'x' is 1152921504606846976"),
        (struct.pack("<IIQ", 9, 8, 1 << 60), "the length of metadata field 'x' is 1152921504606846976"),
        (struct.pack("<IQ", 8, 1 << 60), "'x' is 1152921504606846976 bytes long"),
        (struct.pack("<IQ", 8, 100_000), "'x' runs past the end"),
        (struct.pack("<IIQQ", 9, 8, 1, 100_000), r"'x'\[0\] runs past the end"),
        (struct.pack("<IQ", 8, 1) + b"\xff", "'x' is not UTF-8"),
        (struct.pack("<IIQQ", 9, 8, 1, 1) + b"\xff", r"'x'\[0\] is not UTF-8"),
        (struct.pack("<IB", 7, 2), "'x' is neither true nor false"),
    ],
)
def test_unsound_metadata_is_named(tmp_path: Path, value: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama", "x": value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "mamba"}, "'mamba' is not supported; supported are llama, qwen2, qwen3"),
        ({"general.architecture": None}, "'general.architecture' is missing"),
        ({"qwen2.block_count": None}, "'qwen2.block_count' is missing"),
        ({"qwen2.block_count": "2"}, "'qwen2.block_count' must be a whole number, not '2'"),
        ({"qwen2.block_count": True}, "'qwen2.block_count' must be a whole number, not True"),
        ({"qwen2.block_count": 0}, "'qwen2.block_count' is 0"),
        ({"qwen2.embedding_length": (1 << 32) - 1}, "'qwen2.embedding_length' is 4294967295"),
        ({"qwen2.embedding_length": 66}, "66 cannot be divided among 4"),
        ({"qwen2.attention.head_count_kv": 3}, "4 attention heads cannot be divided among 3"),
        ({"qwen2.attention.head_count_kv": [2, 2]}, "'qwen2.attention.head_count_kv' must be a whole number"),
        ({"qwen2.attention.layer_norm_rms_epsilon": float("nan")}, "finite number"),
        ({"qwen2.rope.freq_base": float("inf")}, "finite number"),
        ({"qwen2.rope.scaling.type": "longrope"}, "rotary scaling 'longrope'"),
        ({"qwen2.rope.dimension_count": 8}, "rope.dimension_count"),
        ({"qwen2.expert_count": 8}, "mixtures of experts"),
        ({"split.count": 3}, "a part of a model split into 3"),
        ({"general.alignment": 24}, "'general.alignment' is 24"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer 't5' is not supported"),
        ({"tokenizer.ggml.tokens": None}, "'tokenizer.ggml.tokens' is missing"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "'tokenizer.ggml.tokens' must be a list of strings"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "'tokenizer.ggml.token_type' must hold one"),
        ({"qwen2.vocab_size": 1000}, "'qwen2.vocab_size' is 1000, but 'tokenizer.ggml.tokens' has"),
        ({"tokenizer.ggml.eos_token_id": 1 << 30}, "'tokenizer.ggml.eos_token_id' is 1073741824"),
        ({"tokenizer.chat_template": 7}, "'tokenizer.chat_template' must be a string"),
    ],
)
def test_unserved_or_wrong_settings_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fields = {key: value for key, value in (metadata() | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", fields))


def test_repeated_and_empty_keys_are_refused(tmp_path: Path) -> None:
    for items, message in (([("a", 1), ("a", 2)], "'a' appears twice"), ([("", 1)], "field 0 has an empty key")):
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(write_gguf(tmp_path / "m.gguf", items))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"GGUF", "the version runs past the end"),
        (b"GGUF" + struct.pack("<I", 1), "GGUF version 1; supported are versions 2 and 3"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "the number of tensors is 1099511627776"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63), "the number of metadata fields is 9223372036854775808"),
    ],
)
def test_unsound_heads_are_named(tmp_path: Path, head: bytes, message: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(head)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def small_fields() -> dict[str, Any]:
    """A whole model's metadata with a vocabulary of four, so that damage hits everything."""
    return metadata(template="{{ messages }}") | {
        "tokenizer.ggml.tokens": ["a", "b", "ab", "<e>"],
        "tokenizer.ggml.token_type": [1, 1, 1, 3],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 3,
        "tokenizer.ggml.eos_token_id": 3,
        "general.tags": packed([1, 2, 3]),
    }


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    tensors = [("token_embd.weight", (4, 32), Q4_0, bytes(72)), ("output_norm.weight", (64,), F32, bytes(256))]
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", small_fields(), tensors).read_bytes()


def open_or_refuse(path: Path, data: bytes) -> None:
    """Open damaged bytes: works, or raises CheckpointError; nothing else, and without filling the memory."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        for tensor in open_checkpoint(path).tensors.values():
            assert len(tensor.read()) == tensor.num_bytes
    except CheckpointError as error:
        refusal = error.message
    else:
        refusal = str(path)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert str(path) in refusal
    assert peak < 1 << 20


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_open_or_are_refused(sound: bytes, tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4), "changes")):
        at = data.draw(st.integers(0, len(damaged) - 8), "at")
        if data.draw(st.booleans(), "a number, or one bit"):
            number = data.draw(st.sampled_from([0, 1, 4, 8, 9, 255, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 64) - 1]))
            damaged[at : at + 8] = U64.pack(number)
        else:
            damaged[at] ^= 1 << data.draw(st.integers(0, 7), "bit")
    open_or_refuse(tmp_path / "damaged.gguf", bytes(damaged))


def test_every_truncation_is_refused(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    draw = random.Random(0)  # noqa: S311
    for length in sorted({draw.randrange(4, len(sound) - 288) for _ in range(300)} | {len(sound) - 1}):
        path.write_bytes(sound[:length])
        with pytest.raises(CheckpointError, match="truncated"):
            read_gguf(path, ModelFiles())


def test_errors_about_strangers_words_are_short_and_printable(tmp_path: Path) -> None:
    long = "\x1b[31m" + "x" * 60_000
    tensors = [(long, (4,), 0, bytes(16))] * 2
    for path in (
        write_gguf(tmp_path / "key.gguf", [(long, 1), (long, 1)]),
        write_gguf(tmp_path / "tensor.gguf", metadata(), tensors),
        write_gguf(tmp_path / "architecture.gguf", metadata() | {"general.architecture": long}),
        write_gguf(tmp_path / "pre.gguf", metadata() | {"tokenizer.ggml.model": long}),
    ):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert len(caught.value.message) < 1300
        assert caught.value.message.isprintable()
        assert str(path) in caught.value.message
    named = open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata() | {"general.name": long}))
    assert named.name.startswith("\\x1b[31mxxx")
    assert len(named.name) == 200

"""Hugging Face folders and the safetensors in them: the same settings as GGUF's, the same strictness."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property_tests import examples
from tiny_checkpoints import metadata, tiny_vocabulary, write_gguf, write_hugging_face, write_safetensors

from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.formats.safetensors import read_safetensors
from antiphon.model_files import ModelFiles


def entry(start: int = 0, end: int = 16, shape: Any = (4,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, end]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_hugging_face(tmp_path / "model")


def change(path: Path, **fields: Any) -> None:
    """Overrule fields of a JSON file; None takes one away."""
    tree = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}), encoding="utf-8")


def test_both_formats_say_the_same(folder: Path, tmp_path: Path) -> None:
    ours = open_checkpoint(folder)
    theirs = open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata(), [("output.weight", (4,), 0, bytes(16))]))
    assert ours.settings == {key: pytest.approx(value) for key, value in theirs.settings.items()}
    assert ours.architecture == theirs.architecture == "qwen2"
    assert ours.chat_template == theirs.chat_template
    assert ours.tokenizer.bos_token_id == theirs.tokenizer.bos_token_id
    assert ours.tokenizer.add_bos == theirs.tokenizer.add_bos


def test_the_small_files_are_understood(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert checkpoint.name == "model"
    assert checkpoint.generation_defaults == {"temperature": 0.6, "top_p": 0.95, "top_k": 40}
    # The tokenizer's own first, then generation_config's, then config's, then those whose text says so.
    own = checkpoint.tokenizer.eos_token_ids[0]
    im_end = tiny_vocabulary()[0].index("<|im_end|>")
    assert checkpoint.tokenizer.eos_token_ids == (own, 7, 0, im_end)
    (folder / "chat_template.jinja").write_text("{{ 'from the file' }}")
    assert open_checkpoint(folder).chat_template == "{{ 'from the file' }}"


def test_bos_is_added_where_the_tokenizers_own_rules_add_it(folder: Path) -> None:
    change(folder / "tokenizer_config.json", add_bos_token=None)
    assert not open_checkpoint(folder).tokenizer.add_bos
    first = {"SpecialToken": {"id": "<｜begin▁of▁sentence｜>", "type_id": 0}}
    steps = [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [first, {"Sequence": {"id": "A"}}]}]
    change(folder / "tokenizer.json", post_processor={"type": "Sequence", "processors": steps})
    assert open_checkpoint(folder).tokenizer.add_bos


def test_one_of_several_templates_is_the_default(folder: Path) -> None:
    several = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    change(folder / "tokenizer_config.json", chat_template=several)
    assert open_checkpoint(folder).chat_template == "b"


def test_of_templates_without_a_default_the_first_is_used_with_a_note(folder: Path) -> None:
    several = [{"name": "tool_use", "template": "a"}, {"name": "rag", "template": "b"}]
    change(folder / "tokenizer_config.json", chat_template=several)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.chat_template == "a"
    (note,) = checkpoint.notes
    assert (note.wrong, note.done) == (
        "none of the checkpoint's chat templates is named 'default'",
        "'tool_use' is used",
    )


@pytest.mark.parametrize("template", [[{"name": ["default"], "template": "a"}], [{"template": "a"}], [7, "x"], []])
def test_templates_without_names_are_none(folder: Path, template: Any) -> None:
    change(folder / "tokenizer_config.json", chat_template=template)
    assert open_checkpoint(folder).chat_template is None


@pytest.mark.parametrize("processor", [5, {"processors": 5}, {"processors": [5]}, {"type": "Sequence"}])
def test_a_post_processor_that_says_nothing_adds_nothing(folder: Path, processor: Any) -> None:
    change(folder / "tokenizer_config.json", add_bos_token=None)
    change(folder / "tokenizer.json", post_processor=processor)
    assert not open_checkpoint(folder).tokenizer.add_bos


def test_an_end_token_that_the_model_has_no_row_for_is_passed_over(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[10**15, 7])
    assert open_checkpoint(folder).tokenizer.eos_token_ids[1:3] == (7, 0)  # after the tokenizer's own


def test_newer_files_keep_the_rotary_base_elsewhere(folder: Path) -> None:
    change(folder / "config.json", rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert open_checkpoint(folder).settings["rope_theta"] == 5e5
    change(folder / "config.json", rope_parameters={"rope_type": "longrope", "rope_theta": 5e5})
    with pytest.raises(CheckpointError, match="rotary scaling 'longrope'"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM' is not supported; supported are LlamaFor"),
        ({"architectures": None}, "'architectures' is missing"),
        ({"hidden_size": "64"}, "'hidden_size' must be a whole number"),
        ({"hidden_size": 1 << 40}, "'hidden_size' is 1099511627776"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu', which is not supported"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rotary scaling 'longrope'"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' is 0.5"),
        ({"quantization_config": {"quant_method": "aqlm"}}, "'quantization_config.quant_method' is 'aqlm'"),
        ({"use_sliding_window": True}, "'use_sliding_window' is True"),
        ({"is_causal": False}, "'is_causal' is False"),
        ({"use_bidirectional_attention": True}, "'use_bidirectional_attention' is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "'layer_types' names layers other"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 511}, "'sliding_window' is 511, below"),
        ({"architectures": ["MistralForCausalLM"], "max_position_embeddings": 8192}, "'sliding_window' is 4096, below"),
        ({"rms_norm_eps": float("nan")}, "finite number"),
        ({"eos_token_id": "no"}, "'eos_token_id' must be"),
    ],
)
def test_unserved_or_wrong_fields_are_named(folder: Path, fields: dict[str, Any], message: str) -> None:
    change(folder / "config.json", **fields)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert "config.json" in caught.value.message


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_half_a_character_is_refused_wherever_it_is(folder: Path, name: str) -> None:
    change(folder / name, odd={"a": ["\ud83d\ude00", {"\udc00": 1}]})
    with pytest.raises(CheckpointError, match=rf"{name}: is not valid JSON \(a lone surrogate\)"):
        open_checkpoint(folder)
    change(folder / name, odd="\ud83d\ude00")
    open_checkpoint(folder)


@pytest.mark.parametrize("source", ["{", "[]", '{"a": 1, "a": 2}', "[" * 100_000, "\ud800"])
def test_unsound_json_is_refused(folder: Path, source: str) -> None:
    (folder / "config.json").write_bytes(source.encode(errors="surrogatepass"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_checkpoint(folder)


def shard(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "one.safetensors", {"a": entry()}, bytes(16))
    write_safetensors(folder / "two.safetensors", {"b": entry()}, bytes(range(16)))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_read_together(folder: Path) -> None:
    shard(folder, {"a": "one.safetensors", "b": "two.safetensors"})
    tensors = open_checkpoint(folder).tensors
    assert list(tensors) == ["a", "b"]
    assert bytes(tensors["b"].read()) == bytes(range(16))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "'weight_map' must map"),
        ({"a": 1}, "'weight_map' must map"),
        ({"a": "../one.safetensors"}, "is not the name of a .safetensors file in this folder"),
        ({"a": "/etc/one.safetensors"}, "is not the name of a .safetensors file in this folder"),
        ({"a": "config.json"}, "is not the name of a .safetensors file in this folder"),
        ({"a": "three.safetensors"}, "the shard three.safetensors is missing"),
        ({"b": "one.safetensors"}, "'b' is said to be in one.safetensors, which does not have it"),
    ],
)
def test_unsound_indices_are_refused(folder: Path, weight_map: Any, message: str) -> None:
    shard(folder, weight_map)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(dtype="F8_E4M3")}, "'a': type 'F8_E4M3' is not supported; use F32, F16, BF16"),
        ({"a": entry(dtype=["F32"])}, "'a': type a list"),
        ({"a": entry(shape=(5,))}, "'a': shape .5. in F32 needs 20 bytes, but has 16"),
        ({"a": entry(shape=(-4,))}, "'a': its shape .* is empty"),
        ({"a": entry(shape=(1 << 62, 1 << 62))}, "'a': its shape .* more than"),
        ({"a": entry(shape=[4.0])}, "'a': its shape must be"),
        ({"a": entry(shape=[True])}, "'a': its shape must be"),
        ({"a": entry(shape=(10**4000,))}, "'a': its shape must be a list of up to 4 whole numbers$"),
        ({"a": entry(0, 10**4000)}, "'a': its data_offsets must be two whole numbers$"),
        ({"a": entry(8, 24)}, "'a' should be in bytes"),
        ({"a": entry(-16, 0)}, "'a' should be in bytes"),
        ({"a": entry(), "b": entry()}, "'a' and 'b' overlap"),
        ({"a": []}, "'a': its entry must be a mapping"),
        ({"a": {"dtype": "F32", "shape": [4]}}, "'a': its data_offsets"),
        (b"not json", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "must hold a mapping"),
    ],
)
def test_unsound_safetensors_are_named(tmp_path: Path, header: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(write_safetensors(tmp_path / "m.safetensors", header, bytes(16)), ModelFiles())


LONG = struct.pack("<Q", 5 << 20) + bytes(5 << 20)  # a header for more tensors than any model has


@pytest.mark.parametrize("data", [b"", b"short", struct.pack("<Q", 1 << 62), struct.pack("<Q", 100) + b"{}", LONG])
def test_unsound_lengths_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        read_safetensors(path, ModelFiles())


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_open_or_are_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = tmp_path / "m.safetensors"
    header = {"__metadata__": {"format": "pt"}, "a": entry(), "b": entry(16, 24, (2, 2), "BF16")}
    damaged = bytearray(write_safetensors(path, header, bytes(24)).read_bytes())
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    path.write_bytes(damaged)
    tracemalloc.start()
    try:
        assert all(len(tensor.read()) == tensor.num_bytes for tensor in read_safetensors(path, ModelFiles()).values())
    except CheckpointError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 20

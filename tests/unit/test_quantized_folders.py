"""Folders quantized by AWQ, GPTQ and compressed-tensors: what their codes stand for, and what is refused by name."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property_tests import examples
from quantized_folders import SCHEMES, Scheme, Stored, config_of, write_quantized_folder
from tiny_checkpoints import write_hugging_face

from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError
from antiphon.footprint import weight_bytes
from antiphon.formats import open_checkpoint, quantized_blocks
from antiphon.ops.reference import dequantize

AWQ, GPTQ, PACK = Scheme("awq", group_size=32), Scheme("gptq", group_size=32), Scheme("pack", group_size=32)
SYMMETRIC = replace(GPTQ, symmetric=True)
INT = Scheme("int", bits=8, group_size=-1, symmetric=True)
UP = "model.layers.1.mlp.up_proj"  # 256 outputs of 128 inputs

Tensors = dict[str, Stored]


def both(*changes: Callable[[Tensors], None]) -> Callable[[Tensors], None]:
    """One change after the other."""

    def change(tensors: Tensors) -> None:
        for each in changes:
            each(tensors)

    return change


def spoilt(ending: str, value: Any, *, at: int = 0, type: str = "<i4") -> Callable[[Tensors], None]:
    """Puts a number into a part of one matrix."""

    def change(tensors: Tensors) -> None:
        part = tensors[UP + ending]
        data = np.frombuffer(bytearray(part.data), type)
        data[at] = value
        tensors[UP + ending] = replace(part, data=data.tobytes())

    return change


def reshaped(ending: str, *shape: int, dtype: str | None = None) -> Callable[[Tensors], None]:
    """Gives a part another shape or type, and zeros of that size."""

    def change(tensors: Tensors) -> None:
        kind = dtype or tensors[UP + ending].dtype
        size = {"I64": 8, "I32": 4, "F32": 4, "F16": 2, "BF16": 2, "I8": 1}[kind]
        tensors[UP + ending] = Stored(kind, shape, bytes(size * int(np.prod(shape))))

    return change


def without(ending: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.pop(UP + ending) and None


def read_all(checkpoint: Checkpoint) -> None:
    for tensor in checkpoint.tensors.values():
        assert len(tensor.read()) == tensor.num_bytes


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_weights_are_what_the_codes_stand_for(tmp_path: Path, scheme: Scheme) -> None:
    truth = write_quantized_folder(tmp_path / "m", scheme)
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.tensors.keys() == truth.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        if scheme.act_order and ".mlp." in name:
            continue  # rows and columns are moved together: below
        wanted, found = dequantize(truth.tensors[name]), dequantize(tensor)
        if tensor.type == "Q4_ZP":  # what is off the middle is rounded to half precision
            assert np.abs(found - wanted).max() <= np.abs(wanted).max() / 3000
        elif scheme.scales == "F32" and tensor.type == "Q8_0":  # so is its scale
            assert np.allclose(found, wanted, rtol=2**-11)
        else:
            assert np.array_equal(found, wanted), name


@pytest.mark.parametrize(
    ("scheme", "types"),
    [
        (AWQ, {"Q4_ZP"}),
        (GPTQ, {"Q4_ZP"}),
        (SYMMETRIC, {"Q4_0"}),
        (INT, {"Q8_0"}),
        (replace(GPTQ, bits=8), {"F32"}),
        (replace(GPTQ, act_order=True), {"Q4_ZP", "F32"}),
    ],
    ids=str,
)
def test_the_kernels_types_and_what_they_weigh(tmp_path: Path, scheme: Scheme, types: set[str]) -> None:
    write_quantized_folder(tmp_path / "m", scheme)
    checkpoint = open_checkpoint(tmp_path / "m")
    matrices = [tensor for tensor in checkpoint.tensors.values() if tensor.source]
    assert {tensor.type for tensor in matrices} == types
    assert len(matrices) == 14
    weights = weight_bytes(matrices, tied=False)
    bits = {"Q4_0": 4.5, "Q4_ZP": 5, "Q8_0": 8.5, "F32": 8.5}
    assert weights.w4 + weights.w8 == sum(tensor.num_elements * bits[tensor.type] / 8 for tensor in matrices)
    in_file = sum(tensor.source.num_bytes for tensor in matrices if tensor.source)
    assert in_file < (tmp_path / "m" / "model.safetensors").stat().st_size


def test_a_folder_says_how_it_is_quantized(tmp_path: Path) -> None:
    write_quantized_folder(tmp_path / "a", AWQ)
    assert open_checkpoint(tmp_path / "a").quantized_by == "AWQ, 4 bits, groups of 32, zero points"
    write_quantized_folder(tmp_path / "b", replace(SYMMETRIC, act_order=True))
    assert open_checkpoint(tmp_path / "b").quantized_by == (
        "GPTQ, 4 bits, groups of 32, symmetric; 2 of 14 matrices read as floats"
    )
    assert open_checkpoint(write_hugging_face(tmp_path / "c")).quantized_by is None


def test_symmetric_zero_points_stored_in_the_other_versions_way_are_understood(tmp_path: Path) -> None:
    """Some tools write `gptq` and mean `gptq_v2`; the middle code is the only one that a symmetric model can have."""
    truth = write_quantized_folder(
        tmp_path / "m", SYMMETRIC, change=lambda tensors: tensors.update(_eights(tensors)) or None
    )
    found = open_checkpoint(tmp_path / "m").tensors[f"{UP}.weight"]
    assert np.array_equal(dequantize(found), dequantize(truth.tensors[f"{UP}.weight"]))


def _eights(tensors: Tensors) -> Tensors:
    return {
        name: replace(part, data=b"\x88" * len(part.data)) for name, part in tensors.items() if name.endswith(".qzeros")
    }


def test_indices_that_are_all_minus_one_say_that_groups_are_neighbours(tmp_path: Path) -> None:
    scheme = replace(PACK, symmetric=True)
    nothing = Stored("I32", (128,), np.full(128, -1, "<i4").tobytes())
    write_quantized_folder(
        tmp_path / "m", scheme, change=lambda tensors: tensors.update({f"{UP}.weight_g_idx": nothing}) or None
    )
    assert open_checkpoint(tmp_path / "m").tensors[f"{UP}.weight"].type == "Q4_0"


def test_act_order_is_exact_but_where_nothing_can_be_moved(tmp_path: Path) -> None:
    truth = write_quantized_folder(tmp_path / "m", replace(SYMMETRIC, act_order=True)).tensors
    found = open_checkpoint(tmp_path / "m").tensors
    kinds = {name.rsplit(".", 2)[1]: tensor for name, tensor in found.items() if "layers.1" in name and tensor.source}
    for own, tensor in kinds.items():
        assert tensor.type == ("F32" if own == "o_proj" else "Q4_0")
        # What down multiplies is put in order by the rows of gate and up.
        assert (tensor.column_order is None) == (own in ("o_proj", "down_proj"))
    gate, up, down = (f"model.layers.1.mlp.{own}_proj.weight" for own in ("gate", "up", "down"))
    assert not np.array_equal(dequantize(found[gate]), dequantize(truth[gate]))
    through, wanted = (dequantize(t[down]) @ (dequantize(t[gate]) * dequantize(t[up])) for t in (found, truth))
    assert np.allclose(through, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("odd", ["one sibling in another order", "one sibling in order", "groups of odd sizes"])
def test_act_order_that_siblings_do_not_share_is_read_as_floats(tmp_path: Path, odd: str) -> None:
    def change(tensors: Tensors) -> None:
        name = f"{UP}.g_idx"
        indices = np.frombuffer(tensors[name].data, "<i4").copy()
        if odd == "groups of odd sizes":
            indices[:] = np.where(indices == 3, 2, indices)
            indices[np.flatnonzero(indices == 2)[:5]] = 3
        else:
            indices = np.sort(indices) if odd == "one sibling in order" else np.roll(indices, 1)
        tensors[name] = replace(tensors[name], data=indices.tobytes())

    write_quantized_folder(tmp_path / "m", replace(SYMMETRIC, act_order=True), change=change)
    found = open_checkpoint(tmp_path / "m").tensors
    mlp = {own: found[f"model.layers.1.mlp.{own}_proj.weight"] for own in ("gate", "up", "down")}
    assert mlp["gate"].type == "F32"
    assert mlp["up"].type == ("Q4_0" if odd == "one sibling in order" else "F32")
    assert mlp["gate"].column_order is mlp["up"].column_order is None
    assert mlp["down"].type == "Q4_0"
    read_all(open_checkpoint(tmp_path / "m"))


def test_groups_that_were_moved_as_a_whole_are_exact(tmp_path: Path) -> None:
    scheme = replace(SYMMETRIC, group_size=64)

    def move(tensors: Tensors) -> None:
        for name, part in list(tensors.items()):
            if name.endswith("up_proj.g_idx"):
                tensors[name] = replace(part, data=np.repeat([1, 0], 64).astype("<i4").tobytes())
            if name.endswith("up_proj.scales"):
                tensors[name] = replace(part, data=np.flipud(np.frombuffer(part.data, "<f2").reshape(2, -1)).tobytes())

    truth = write_quantized_folder(tmp_path / "m", scheme, change=move).tensors[f"{UP}.weight"]
    found = open_checkpoint(tmp_path / "m").tensors[f"{UP}.weight"]
    assert found.type == "Q4_0"
    assert np.array_equal(dequantize(found), dequantize(truth))


def test_zero_points_of_an_int8_each_are_understood(tmp_path: Path) -> None:
    def unpack(tensors: Tensors) -> None:
        for name, part in list(tensors.items()):
            if name.endswith(".weight_zero_point"):
                words = np.frombuffer(part.data, "<u4").reshape(part.shape)
                each = np.stack([words >> 4 * place & 15 for place in range(8)], axis=1)  # [rows / 8, 8, groups]
                values = each.reshape(-1, part.shape[1]).astype(np.int8) - 8
                tensors[name] = Stored("I8", values.shape, values.tobytes())

    truth = write_quantized_folder(tmp_path / "m", PACK, change=unpack)
    found, wanted = (dequantize(c.tensors[f"{UP}.weight"]) for c in (open_checkpoint(tmp_path / "m"), truth))
    assert np.abs(found - wanted).max() <= np.abs(wanted).max() / 1000


@pytest.mark.parametrize("scheme", [AWQ, PACK], ids=str)
def test_early_folders_keep_the_settings_elsewhere(tmp_path: Path, scheme: Scheme) -> None:
    write_quantized_folder(
        tmp_path / "m", scheme, quantization_config=None, compression_config=config_of(scheme) | {"quant_method": None}
    )
    if scheme is PACK:
        assert open_checkpoint(tmp_path / "m").quantized_by is not None
        return
    with pytest.raises(CheckpointError, match=r"'compression_config\.format' is missing"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("scheme", "changes", "message"),
    [
        (
            AWQ,
            {"version": "gemv"},
            "'quantization_config.version' is 'gemv', which is not supported; serve the model as",
        ),
        (AWQ, {"version": "marlin"}, "'marlin'"),
        (AWQ, {"bits": 3}, "'quantization_config.bits' is 3"),
        (AWQ, {"bits": "4"}, "'quantization_config.bits' must be a whole number"),
        (AWQ, {"zero_point": False}, "'quantization_config.zero_point' is False"),
        (AWQ, {"group_size": 16}, "'quantization_config.group_size' is 16; it must be -1 or a multiple of 32"),
        (AWQ, {"group_size": 0}, "'quantization_config.group_size' is 0"),
        (AWQ, {"group_size": 10**30}, "'quantization_config.group_size' is 1000"),
        (AWQ, {"group_size": None}, "'quantization_config.group_size' is missing"),
        (AWQ, {"quant_method": "bitsandbytes"}, "'quantization_config.quant_method' is 'bitsandbytes'"),
        (AWQ, {"quant_method": "fp8"}, "'fp8', which is not supported"),
        (AWQ, {"quant_method": "auto-round"}, "'auto-round', which is not supported"),
        (AWQ, {"quant_method": None}, "'quantization_config.quant_method' is missing"),
        (GPTQ, {"bits": 2}, "'quantization_config.bits' is 2"),
        (GPTQ, {"checkpoint_format": "marlin"}, "'quantization_config.checkpoint_format' is 'marlin'"),
        (GPTQ, {"is_marlin_format": True}, "is 'marlin'"),
        (GPTQ, {"dynamic": {r"+:layers\.0": {"bits": 8}}}, "'quantization_config.dynamic' is a mapping of 1"),
        (PACK, {"format": "marlin-24"}, "'quantization_config.format' is 'marlin-24'"),
        (PACK, {"format": "float-quantized"}, "'float-quantized'"),
        (PACK, {"format": "nvfp4-pack-quantized"}, "'nvfp4-pack-quantized'"),
        (PACK, {"format": "mixed-precision"}, "'mixed-precision'"),
        (PACK, {"sparsity_config": {"format": "sparse-24-bitmask"}}, "'quantization_config.sparsity_config'"),
        (PACK, {"transform_config": {"a": {}}}, "'quantization_config.transform_config'"),
        (PACK, {"config_groups": {}}, "'quantization_config.config_groups' must hold one group, not a mapping of 0"),
        (PACK, {"config_groups": {"a": {}, "b": {}}}, "must hold one group, not a mapping of 2"),
        (PACK, {"config_groups": {"a": 1}}, "'quantization_config.config_groups.a' must be a mapping, not 1"),
        (PACK, {"config_groups": {"a": {}}}, "'quantization_config.config_groups.a.weights' must be a mapping"),
        (PACK, {"config_groups": {"a": {"weights": {"type": "float"}}}}, "weights.type' is 'float'"),
        (PACK, {"config_groups": {"a": {"weights": {"num_bits": 3}}}}, "weights.num_bits' is 3"),
        (PACK, {"config_groups": {"a": {"weights": {"num_bits": 4, "strategy": "block"}}}}, "strategy' is 'block'"),
        (INT, {"config_groups": {"a": {"weights": {"num_bits": 4}}}}, "weights.num_bits' is 4"),
    ],
)
def test_other_schemes_are_refused_by_name(
    tmp_path: Path, scheme: Scheme, changes: dict[str, Any], message: str
) -> None:
    folder = write_hugging_face(tmp_path / "m", quantization_config=config_of(scheme) | changes)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in caught.value.message
    assert "config.json" in caught.value.message


@pytest.mark.parametrize("source", ["awq", [4], 4, True])
def test_a_quantization_that_is_no_mapping_is_refused(tmp_path: Path, source: Any) -> None:
    with pytest.raises(CheckpointError, match="'quantization_config' must be a mapping"):
        open_checkpoint(write_hugging_face(tmp_path / "m", quantization_config=source))


@pytest.mark.parametrize(
    ("scheme", "change", "message"),
    [
        (AWQ, without(".qzeros"), ".qzeros: is missing, but awq needs it"),
        (AWQ, without(".scales"), ".scales: is missing"),
        (AWQ, reshaped(".qzeros", 4, 31), ".qzeros: has shape [4, 31], but AWQ, 4 bits, groups of 32"),
        (AWQ, reshaped(".scales", 256, 4), ".scales: has shape [256, 4]"),
        (AWQ, reshaped(".scales", 4, 256, dtype="I32"), ".scales: has type I32, but awq has F16 or BF16 or F32"),
        (AWQ, reshaped(".qweight", 128, 32, 1), ".qweight: has shape [128, 32, 1]"),
        (AWQ, reshaped(".qweight", 128, 32, dtype="F32"), ".qweight: has type F32, but awq has I32"),
        (AWQ, reshaped(".qweight", 16, 32), ".scales: has shape [4, 256], but AWQ, 4 bits, groups of 32"),
        (AWQ, reshaped(".qweight", 128, 16), ".scales: has shape [4, 256], but AWQ, 4 bits, groups of 32"),
        (GPTQ, reshaped(".g_idx", 127), ".g_idx: has shape [127]"),
        (GPTQ, spoilt(".g_idx", 4), ".g_idx: column 0 is said to be of group 4; there are groups 0 to 3"),
        (GPTQ, spoilt(".g_idx", -1, at=9), ".g_idx: column 9 is said to be of group -1"),
        (GPTQ, spoilt(".g_idx", 2**31 - 1), "is said to be of group 2147483647"),
        (GPTQ, spoilt(".bias", 1.0, type="<f2"), ".bias: a bias of this module is not supported"),
        (PACK, spoilt(".weight_shape", 255, type="<i8"), ".weight_shape: says [255, 128], but weight_packed holds"),
        (PACK, spoilt(".weight_shape", 2**62, type="<i8"), ".weight_shape: says [4611686018427387904, 128]"),
        (PACK, without(".weight_packed"), ".weight_packed: is missing"),
        (PACK, without(".weight_zero_point"), ".weight_zero_point: is missing"),
        (PACK, without(".weight_scale"), "'model.layers.1.mlp.up_proj.weight_packed': type I32 is not supported"),
        (INT, reshaped(".weight", 256, 128, dtype="F32"), ".weight: has type F32, but compressed-tensors has I8 here"),
        (INT, reshaped(".weight_scale", 256, 2), ".weight_scale: has shape [256, 2]"),
    ],
)
def test_unsound_parts_are_named_before_they_are_read(
    tmp_path: Path, scheme: Scheme, change: Callable[[Tensors], None], message: str
) -> None:
    write_quantized_folder(tmp_path / "m", scheme, change=change)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "m")
    assert message in caught.value.message
    assert UP in caught.value.message


@pytest.mark.parametrize(
    ("scheme", "change", "message"),
    [
        *((AWQ, spoilt(".scales", bad, type="<f2"), ".scales: holds a scale that is") for bad in (np.nan, np.inf)),
        (INT, spoilt(".weight_scale", -np.inf, type="<f2"), ".weight_scale: holds a scale that is not a finite"),
        (replace(INT, scales="F32"), spoilt(".weight_scale", 1e6, type="<f4"), "finite number of half precision"),
        (replace(INT, scales="BF16"), spoilt(".weight_scale", 0x7FC0, type="<u2"), "finite number of half precision"),
        (AWQ, both(spoilt(".scales", 6e4, type="<f2"), spoilt(".qzeros", 0)), ".scales: holds a scale that, times its"),
        (GPTQ, spoilt(".qzeros", -1), ".qzeros: holds a zero point of 16, but codes have 4 bits"),
        (replace(GPTQ, bits=8), spoilt(".qzeros", -1), ".qzeros: holds a zero point of 256, but codes have 8 bits"),
        (SYMMETRIC, spoilt(".qzeros", 0), ".qzeros: holds a zero point other than 8, but config.json says"),
    ],
)
def test_unsound_numbers_are_named_before_anything_is_unpacked(
    tmp_path: Path, scheme: Scheme, change: Callable[[Tensors], None], message: str
) -> None:
    write_quantized_folder(tmp_path / "m", scheme, change=change)
    assert quantized_blocks  # imported before memory is measured
    tensor = open_checkpoint(tmp_path / "m").tensors[f"{UP}.weight"]
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            tensor.read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message in caught.value.message
    assert UP in caught.value.message
    assert peak < 256 * 128 * 4  # float32 weights of this matrix would not fit


def test_a_matrix_and_its_parts_together_are_refused(tmp_path: Path) -> None:
    plain = Stored("F16", (256, 128), bytes(2 * 256 * 128))
    write_quantized_folder(tmp_path / "m", AWQ, change=lambda tensors: tensors.update({f"{UP}.weight": plain}) or None)
    with pytest.raises(CheckpointError, match="is there beside the parts that awq made of it"):
        open_checkpoint(tmp_path / "m")


def test_codes_without_a_quantization_are_refused(tmp_path: Path) -> None:
    write_quantized_folder(tmp_path / "m", AWQ, quantization_config=None)
    with pytest.raises(CheckpointError, match=r"qweight': type I32 is not supported; .* quantization_config of config"):
        open_checkpoint(tmp_path / "m")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_quantized_folder(tmp_path / "m", AWQ)
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "model-00001-of-00002.safetensors")
    weight_map = {
        f"{UP}.qweight": "model-00001-of-00002.safetensors",
        f"{UP}.scales": "model-00002-of-00002.safetensors",
    }
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"the shard model-00002-of-00002\.safetensors is missing"):
        open_checkpoint(tmp_path / "m")


@pytest.fixture(scope="module", params=[AWQ, replace(GPTQ, act_order=True), PACK, INT], ids=str)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "m"
    write_quantized_folder(folder, request.param)
    return folder


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 22), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_folders_are_read_or_refused(sound: Path, changes: list[tuple[int, int]]) -> None:
    path = sound / "model.safetensors"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for at, byte in changes:
        damaged[at % min(len(damaged), 20_000 if at % 2 else len(damaged))] = byte  # the header as often as the rest
    path.unlink()  # whoever maps the file keeps what was there
    path.write_bytes(damaged)
    try:
        read_all(open_checkpoint(sound))
    except CheckpointError:
        pass
    finally:
        path.unlink()
        path.write_bytes(whole)

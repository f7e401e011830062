"""`antiphon inspect` says what a model is, and what serving it would take."""

from __future__ import annotations

import json

import pytest
from command_line import run_antiphon
from quantized_folders import Scheme, write_quantized_folder
from tiny_checkpoints import metadata, write_gguf
from tiny_folders import write_random_folder

from antiphon.config import EngineConfig
from antiphon.errors import CheckpointError
from antiphon.runtime.cpu import create_runner


def test_inspect_says_who_fits_a_gpu_that_is_not_here(tmp_path):
    model = str(write_gguf(tmp_path / "m.gguf", metadata()))
    reports = [
        json.loads(run_antiphon("inspect", model, "--json", "--device", "cuda:0", "--memory", size).output)
        for size in ("8GiB", "24GiB")
    ]
    small, large = (report["kv_cache"] for report in reports)
    assert [report["memory"]["free"] for report in reports] == [8 << 30, 24 << 30]
    assert list(small) == ["int8"]
    assert large["int8"]["capacity_tokens"] > 3 * small["int8"]["capacity_tokens"]
    assert (
        json.loads(run_antiphon("inspect", model, "--json", "--memory", "1.5 GB").output)["memory"]["free"]
        == 1_500_000_000
    )


def test_inspect_says_what_its_plan_is_for(tmp_path):
    model = str(write_gguf(tmp_path / "m.gguf", metadata()))
    on_a_gpu = run_antiphon("inspect", model, "--device", "cuda:0", "--memory", "24GiB").output
    assert "served on cuda:0 with 24GiB: " in on_a_gpu
    assert "threads:" not in on_a_gpu  # this machine is not the one that is planned for
    too_little = run_antiphon("inspect", model, "--memory", "1MiB").output
    assert "it cannot be served on cpu with 1MiB: there is not enough memory" in too_little
    here = run_antiphon("inspect", model).output
    assert "served here: " in here
    assert "threads:" in here


@pytest.mark.parametrize("memory", ["much", "24XB", "1e9", "GiB"])
def test_inspect_refuses_a_memory_that_is_no_size(tmp_path, memory):
    result = run_antiphon("inspect", str(write_gguf(tmp_path / "m.gguf", metadata())), "--memory", memory)
    assert "it must be a size such as 24GiB" in str(result.exception)


def test_inspect(tmp_path):
    model = str(write_gguf(tmp_path / "m.gguf", metadata()))
    report = json.loads(run_antiphon("inspect", model, "--json").output)
    assert report["architecture"] == "qwen2"
    assert report["tensors"] == {"F32": {"count": 1, "weights": 4, "bytes": 16}}
    assert report["kv_cache"]["f16"]["bytes_per_token"] == 2 * 2 * 2 * 2 * 16
    text = run_antiphon("inspect", model).output
    assert "qwen2" in text
    assert "Users that fit" in text
    assert [finding["done"] for finding in report["findings"]][:2] == ["it cannot be served", "one is kept"]
    assert "note: the checkpoint advises no temperature" in text


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"hidden_size": 160}, "input_layernorm.weight has shape [96], but the settings call for [160]"),
        ({"num_hidden_layers": 1 << 23}, "model.layers.2.input_layernorm.weight is missing"),
    ],
)
def test_inspect_says_what_serve_would_refuse(tmp_path, fields, wrong):
    config = write_random_folder(tmp_path / "m", "qwen2") / "config.json"
    assert "it cannot be served" not in run_antiphon("inspect", str(tmp_path / "m")).output
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    (finding, *_) = json.loads(run_antiphon("inspect", str(tmp_path / "m"), "--json").output)["findings"]
    assert wrong in finding["wrong"]
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/m: tensor .*(shape|missing)"):
        create_runner(EngineConfig(str(tmp_path / "m"), context_length=64, kv_cache_tokens=64, quantization="w8"))


def test_inspect_says_how_a_folder_is_quantized(tmp_path):
    write_quantized_folder(tmp_path / "m", Scheme("awq"))
    report = json.loads(run_antiphon("inspect", str(tmp_path / "m"), "--json").output)
    assert report["quantized_by"] == "AWQ, 4 bits, groups of 128, zero points"
    matrices = report["tensors"]["awq as Q4_ZP"]
    words = matrices["weights"] // 8 * 4
    scales, zeros = matrices["weights"] // 128 * 2, matrices["weights"] // 128 // 2
    assert (matrices["count"], matrices["bytes"]) == (14, words + scales + zeros)
    assert report["memory"]["w4"] == matrices["weights"] * 5 // 8
    assert "quantized by AWQ, 4 bits" in run_antiphon("inspect", str(tmp_path / "m")).output

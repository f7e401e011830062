"""Models written in fewer bits: what is in the files, what is measured, and what is refused before any work."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from quantized_folders import Scheme, write_quantized_folder
from tiny_folders import write_random_folder, write_random_gguf
from tiny_models import scheduled, tiny_model

from antiphon import _native
from antiphon.errors import AntiphonError, CheckpointError, ConfigError
from antiphon.formats import open_checkpoint
from antiphon.ops.reference import dequantize
from antiphon.quantizer import job as job_module
from antiphon.quantizer.comparison import compare
from antiphon.quantizer.importance import measure_importance
from antiphon.quantizer.job import COMPARED, WINDOW, Job
from antiphon.quantizer.model import Quantizer
from antiphon.quantizer.streamed import compute
from antiphon.quantizer.types import first_types, sensitive
from antiphon.runtime.reference import ReferenceRunner
from antiphon.step import StepPlan

TEXT = "The quick brown fox jumps over the lazy dog, and 12 of them do so again. " * 60


def quiet(what: str, fraction: float) -> None:
    """Nobody watches."""


@pytest.fixture
def folder(tmp_path):
    return write_random_folder(tmp_path / "model", "llama")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def windows(count: int, length: int = 24, vocab: int = 200) -> list[list[int]]:
    return np.random.default_rng(4).integers(0, vocab, (count, length)).tolist()


@pytest.mark.parametrize("target", ["Q4_0", "Q4_1", "Q8_0"])
def test_a_gguf_file_is_the_same_model_in_other_types(tmp_path, target):
    source = write_random_gguf(tmp_path / "a.gguf", "qwen2", type="F16")
    out = tmp_path / "b.gguf"
    plan = Job.prepare(open_checkpoint(source), out, target).run(quiet)
    before, after = open_checkpoint(source), open_checkpoint(out)
    assert replace(after, path=before.path, tensors={}) == replace(before, tensors={})
    assert list(after.tensors) == list(before.tensors)
    for name, tensor in after.tensors.items():
        assert tensor.type == plan.types[name]
        was, now = dequantize(before.tensors[name]), dequantize(tensor)
        if tensor.type == before.tensors[name].type:
            assert np.array_equal(was, now)
        else:
            assert plan.errors[name] == pytest.approx(((was - now) ** 2).sum() / (was**2).sum(), rel=1e-3)
    assert {after.tensors[name].type for name in ("token_embd.weight", "output.weight")} == {"Q8_0"}
    assert after.tensors["blk.0.ffn_up.weight"].type == target


def test_the_official_reader_finds_the_same_fields_and_values(tmp_path):
    source = write_random_gguf(tmp_path / "a.gguf", "llama", type="F16")
    Job.prepare(open_checkpoint(source), tmp_path / "b.gguf", "Q4_0").run(quiet)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "b.gguf")
    assert after.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_0
    changed = {"general.file_type", "general.quantization_version", "GGUF.kv_count", "GGUF.version"}
    for key in set(before.fields) - changed:
        assert after.fields[key].contents() == before.fields[key].contents(), key
    for tensor in after.tensors:
        ours = dequantize(open_checkpoint(tmp_path / "b.gguf").tensors[tensor.name])
        assert np.array_equal(gguf.quants.dequantize(tensor.data, tensor.tensor_type), ours)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_folder_becomes_a_folder_of_blocks(tmp_path, architecture):
    source = write_random_folder(tmp_path / "model", architecture)
    (source / "run_me.py").write_text("raise SystemExit")
    out = tmp_path / "small"
    plan = Job.prepare(open_checkpoint(source), out, "Q4_1").run(quiet)
    before, after = open_checkpoint(source), open_checkpoint(out)
    assert after.settings == before.settings
    assert (after.tokenizer, after.chat_template) == (before.tokenizer, before.chat_template)
    assert after.generation_defaults == before.generation_defaults
    assert not (out / "run_me.py").exists()
    device = _native.Device("auto", 1)
    quantizer = Quantizer(before, device, {})
    for planned, data in quantizer.tensors(plan.types):
        found = after.tensors[planned.name]
        assert (found.type, found.shape) == (planned.type, planned.shape)
        assert bytes(found.read()) == bytes(data)


def test_columns_that_a_text_uses_are_kept_better(tmp_path, folder, text):
    checkpoint = open_checkpoint(folder)
    plain = Job.prepare(checkpoint, tmp_path / "plain", "Q4_0")
    calibrated = Job.prepare(checkpoint, tmp_path / "calibrated", "Q4_0", text=text)
    plain.run(quiet)
    calibrated.run(quiet)
    importance = measure_importance(checkpoint, calibrated.windows[:-COMPARED])
    lost = {"plain": 0.0, "calibrated": 0.0}
    for name, weights in importance.items():
        was = dequantize(checkpoint.tensors[name])
        if name.startswith("model.layers"):
            for kind in lost:
                now = dequantize(open_checkpoint(tmp_path / kind).tensors[name])
                lost[kind] += float((weights * (was - now) ** 2).sum() / (weights * was**2).sum())
    assert lost["calibrated"] < 0.97 * lost["plain"]
    comparison = calibrated.compare(quiet)
    assert comparison is not None
    assert comparison.tokens == COMPARED * WINDOW
    assert 0 < comparison.mean_kl < 1
    assert plain.compare(quiet) is None


def test_a_streamed_model_computes_what_the_reference_does():
    model = tiny_model(architecture="qwen3")
    chosen = windows(3)
    logits = compute(model, chosen)
    runner = ReferenceRunner(model)
    row = 0
    for window in chosen:
        for length in range(1, len(window) + 1):
            runner.execute(StepPlan([scheduled(window[:length], [0])]))
            assert np.allclose(runner.logits()[0], logits[row], rtol=1e-4, atol=1e-4)
            row += 1


def test_importance_is_the_mean_square_of_a_matrix_input():
    model = tiny_model(architecture="llama", format="gguf")
    chosen = windows(2)
    found = measure_importance(model, chosen)
    x = dequantize(model.tensors["token_embd.weight"])[[token for window in chosen for token in window]]
    normed = (
        x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6) * dequantize(model.tensors["blk.0.attn_norm.weight"])
    )
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"):
        assert np.allclose(found[name], (normed**2).mean(axis=0), rtol=1e-4)
    matrices = {name for name, tensor in model.tensors.items() if len(tensor.shape) == 2}
    assert set(found) == matrices - {"token_embd.weight"}


def test_a_model_is_no_distance_from_itself():
    model = tiny_model(architecture="llama")
    found = compare(model, model, windows(2))
    assert (found.mean_kl, found.same_top_token) == (0.0, 1.0)
    assert found.perplexity_before == found.perplexity_after


def test_perplexity_is_of_the_next_tokens():
    model, chosen = tiny_model(architecture="llama"), windows(2, 5)
    logits = compute(model, chosen).astype(np.float64).reshape(2, 5, -1)
    surprise = [
        np.log(np.exp(logits[n, at]).sum()) - logits[n, at, chosen[n][at + 1]] for n in range(2) for at in range(4)
    ]
    assert compare(model, model, chosen).perplexity_before == pytest.approx(np.exp(np.mean(surprise)))


def test_what_stands_out_is_kept_finer(tmp_path):
    assert sensitive({"a": 0.01, "b": 0.011, "c": 0.05}) == ["c"]
    assert sensitive({"a": 0.01, "b": 0.019}) == []
    assert sensitive({}) == []
    checkpoint = tiny_model(architecture="llama", format="gguf", type="F32")
    name = "blk.1.attn_v.weight"
    values = dequantize(checkpoint.tensors[name]).copy()
    values[:, ::32] *= 1000  # an outlier in each group: nothing is left of the others
    values[:, 1::32] *= -300
    data = values.tobytes()
    tensors = {**checkpoint.tensors, name: replace(checkpoint.tensors[name], read=lambda: memoryview(data))}
    checkpoint = replace(checkpoint, tensors=tensors)
    importance = {name: np.where(np.arange(values.shape[1]) % 32 < 2, 1e-9, 1.0).astype(np.float32)}
    quantizer = Quantizer(checkpoint, _native.Device("auto", 1), importance)
    plan = quantizer.plan(first_types(checkpoint, "Q4_1"))
    assert plan.kept_finer == (name,)
    assert plan.types[name] == "Q8_0"


def test_what_is_quantized_already_is_not_quantized_again_unasked(tmp_path):
    source = write_random_gguf(tmp_path / "a.gguf", "llama", type="Q4_0")
    with pytest.raises(CheckpointError, match="is in Q4_0 already"):
        Job.prepare(open_checkpoint(source), tmp_path / "b.gguf", "Q8_0")
    Job.prepare(open_checkpoint(source), tmp_path / "b.gguf", "Q8_0", requantize=True).run(quiet)
    assert open_checkpoint(tmp_path / "b.gguf").tensors["blk.0.attn_q.weight"].type == "Q8_0"


@pytest.mark.parametrize("bits", [4, 8])
def test_act_order_is_not_quantized_again(tmp_path, bits):
    """What is written keeps columns where they stand, and would be another model."""
    write_quantized_folder(tmp_path / "m", Scheme("gptq", bits=bits, group_size=32, symmetric=True, act_order=True))
    with pytest.raises(CheckpointError, match="is quantized in act-order, which cannot be quantized again"):
        first_types(open_checkpoint(tmp_path / "m"), "Q4_1", requantize=True)


def test_places_that_cannot_be_are_refused_before_any_work(tmp_path, folder, text):
    checkpoint = open_checkpoint(folder)
    (tmp_path / "there").mkdir()
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "bytes.txt").write_bytes(b"\xff" * 10_000)
    cases = [
        ({"out": tmp_path / "x.gguf"}, "so OUT must be a folder too"),
        ({"out": tmp_path / "nowhere" / "x"}, "no such folder"),
        ({"out": folder}, "is the model itself"),
        ({"out": tmp_path / "there"}, "--force replaces it"),
        ({"out": tmp_path / "there", "force": True}, "is not a model, so it is not replaced, even with --force"),
        ({"out": tmp_path / "x", "target": "Q5_0"}, "--type is q5_0"),
        ({"out": tmp_path / "x", "text": tmp_path / "short.txt"}, "at least 1,280 are needed"),
        ({"out": tmp_path / "x", "text": tmp_path / "bytes.txt"}, "is not UTF-8"),
        ({"out": tmp_path / "x", "text": tmp_path / "absent.txt"}, "cannot be read"),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            Job.prepare(checkpoint, **{"target": "Q4_1", **options})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes.txt", "model", "short.txt", "text.txt", "there"]


def tree(folder):
    """Everything below a folder, with its content."""
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


PROJECTS = {
    "sources": {"config.json": "{}", "main.py": "print()", "src/app.py": "print()"},
    "a model with notes": {"config.json": "{}", "model.safetensors": "", "notes.txt": "mine"},
    "a model with a folder": {"config.json": "{}", "model.safetensors": "", "README.md/x": "mine"},
    "no weights": {"config.json": "{}", "README.md": "mine"},
    "weights without settings": {"model.safetensors": ""},
}


@pytest.mark.parametrize("files", PROJECTS.values(), ids=PROJECTS.keys())
def test_force_never_replaces_a_folder_that_is_not_only_a_model(tmp_path, folder, files):
    out = tmp_path / "out"
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match="not replaced, even with --force"):
        Job.prepare(open_checkpoint(folder), out, "Q4_1", force=True)
    assert tree(tmp_path) == before


def test_force_never_replaces_what_the_model_is_read_from(tmp_path, folder):
    outer = write_random_folder(tmp_path / "outer", "llama")
    inner = outer / "inner"
    folder.rename(inner)
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in outer.iterdir():
        if file.is_file():
            (linked / file.name).symlink_to(file)
    whole = write_random_gguf(tmp_path / "whole.gguf", "llama", type="F16")
    first, second = tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"
    whole.rename(second)
    write_random_gguf(first, "llama", type="F16")
    other_name = tmp_path / "hard-link.gguf"
    other_name.hardlink_to(second)
    before = tree(tmp_path)
    for source, out in ((inner, outer), (linked, outer), (first, second), (first, first), (first, other_name)):
        with pytest.raises(ConfigError, match="the model itself; write to another place"):
            Job.prepare(open_checkpoint(source), out, "Q4_1", force=True)
    assert tree(tmp_path) == before


def test_force_never_replaces_a_file_that_is_no_gguf(tmp_path):
    source = open_checkpoint(write_random_gguf(tmp_path / "a.gguf", "llama", type="F16"))
    out, link = tmp_path / "b.gguf", tmp_path / "link.gguf"
    out.write_text("notes under a strange name")
    link.symlink_to(tmp_path / "not here yet.gguf")
    (tmp_path / "folder.gguf").mkdir()
    for path in (out, link, tmp_path / "folder.gguf"):
        with pytest.raises(ConfigError, match="already exists"):
            Job.prepare(source, path, "Q4_0")
        with pytest.raises(ConfigError, match="not replaced, even with --force"):
            Job.prepare(source, path, "Q4_0", force=True)
    assert out.read_text() == "notes under a strange name"
    assert link.is_symlink()


def test_what_appears_while_a_model_is_quantized_is_not_replaced(tmp_path, folder):
    out = tmp_path / "out"
    job = Job.prepare(open_checkpoint(folder), out, "Q8_0")
    out.mkdir()
    (out / "thesis.tex").write_text("two years of work")
    with pytest.raises(ConfigError, match="already exists"):
        job.run(quiet)
    assert (out / "thesis.tex").read_text() == "two years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_a_model_that_is_replaced_is_kept_until_the_new_one_is_in_its_place(tmp_path, folder, monkeypatch):
    out = tmp_path / "out"
    Job.prepare(open_checkpoint(folder), out, "Q8_0").run(quiet)
    before, rename = tree(out), Path.rename

    def fail(path, target):
        if ".part-" in path.parent.name:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="cannot be written"):
        Job.prepare(open_checkpoint(folder), out, "Q4_1", force=True).run(quiet)
    monkeypatch.undo()
    assert tree(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path, folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("antiphon.replacing.tempfile.TemporaryDirectory", refuse)
    with pytest.raises(CheckpointError, match=r"out: cannot be written \(Permission denied\)"):
        Job.prepare(open_checkpoint(folder), tmp_path / "out", "Q4_1").run(quiet)


def test_a_disk_that_is_too_small_is_noticed_first(tmp_path, folder, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(job_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"the disk has 0\.0 GB left"):
        Job.prepare(open_checkpoint(folder), tmp_path / "x", "Q4_1")


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, folder):
    out = tmp_path / "small"
    Job.prepare(open_checkpoint(folder), out, "Q8_0").run(quiet)
    before = (out / "model.safetensors").read_bytes()
    checkpoint = open_checkpoint(folder)
    tensors = {**checkpoint.tensors}
    last = tensors["model.layers.1.mlp.down_proj.weight"]
    broken = b"\xff" * last.num_bytes  # BF16's not-a-number
    reads = iter([last.read(), *[memoryview(broken)] * 9])
    tensors[last.name] = replace(last, read=lambda: next(reads))  # sound while it is measured, not when written
    with pytest.raises(AntiphonError, match=last.name):
        Job.prepare(replace(checkpoint, tensors=tensors), out, "Q4_1", force=True).run(quiet)
    assert (out / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "small"]
    Job.prepare(checkpoint, out, "Q4_1", force=True).run(quiet)
    assert open_checkpoint(out).tensors["model.layers.0.mlp.up_proj.weight"].type == "Q4_1"


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_a_source_that_changes_meanwhile_is_noticed_and_what_was_there_stays(tmp_path, kind):
    if kind == "gguf":
        source, out = write_random_gguf(tmp_path / "a.gguf", "qwen2", type="F16"), tmp_path / "b.gguf"
        weights = source
    else:
        source, out = write_random_folder(tmp_path / "a", "qwen2"), tmp_path / "b"
        weights = source / "model.safetensors"
    Job.prepare(open_checkpoint(source), out, "Q8_0").run(quiet)
    before = sorted(path.stat().st_mtime_ns for path in [out, *out.rglob("*")])

    def touch_when_writing(what: str, fraction: float) -> None:
        if what == "writing":
            with weights.open("r+b") as file:
                file.seek(-2, 2)
                file.write(b"\1\1")

    with pytest.raises(CheckpointError, match=rf"{weights.name}: the file has changed"):
        Job.prepare(open_checkpoint(source), out, "Q4_1", force=True).run(touch_when_writing)
    assert sorted(path.stat().st_mtime_ns for path in [out, *out.rglob("*")]) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, out.name]


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_a_source_that_is_replaced_meanwhile_is_read_as_it_was(tmp_path, kind):
    def write(name: str, seed: int):
        if kind == "gguf":
            return write_random_gguf(tmp_path / f"{name}.gguf", "qwen2", type="F16", seed=seed, rope_theta=1e4 + seed)
        return write_random_folder(tmp_path / name, "qwen2", seed=seed, rope_theta=1e4 + seed)

    source, other = write("a", 0), write("other", 1)
    wanted, out = [tmp_path / f"{name}{source.suffix}" for name in ("wanted", "out")]
    Job.prepare(open_checkpoint(source), wanted, "Q8_0").run(quiet)
    job = Job.prepare(open_checkpoint(source), out, "Q8_0")
    for file in other.iterdir() if kind == "folder" else [other]:
        file.replace(source / file.name if kind == "folder" else source)
    job.run(quiet)
    assert read_all(out) == read_all(wanted)


def read_all(model) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model.iterdir()} if model.is_dir() else {"": model.read_bytes()}

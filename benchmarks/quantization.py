"""What 4 and 8 bits cost, ours and llama.cpp's: bits a weight, KL divergence and perplexity against float weights.

    python benchmarks/quantization.py MODEL.gguf --llama-quantize BUILD/bin/llama-quantize

MODEL is any GGUF file. It is first made into float weights that no quantized grid fits: every value dequantized, then
the channels of the residual stream and of each MLP's inside put into a random order, which leaves the function as it
is. Then every candidate is made from that file, and all are judged by one evaluation: both models in float32 over the
weights as stored (`quantizer.comparison`), so that what is compared is the weights alone. Calibrated ones are
calibrated on another part of the text.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from prose import prose

from antiphon.checkpoint import Checkpoint
from antiphon.formats import open_checkpoint
from antiphon.models.spec import ModelSpec
from antiphon.quantizer.comparison import Comparison, compare
from antiphon.quantizer.job import WINDOW, Job
from antiphon.text import TextModel

OURS = ("Q4_0", "Q4_1", "Q8_0")
THEIRS = ("Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
FROM_RESIDUAL = ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up", "token_embd", "output")
TO_RESIDUAL = ("attn_output", "ffn_down")


def write_shuffled_floats(source: Path, out: Path) -> None:
    """`source` in F16, its channels in another order."""
    reader = gguf.GGUFReader(source)
    checkpoint = open_checkpoint(source)
    writer = gguf.GGUFWriter(out, checkpoint.architecture)
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")):
            kind, *inner = field.types
            writer.add_key_value(key, field.contents(), kind, inner[0] if inner else None)
    spec = ModelSpec.from_checkpoint(checkpoint)
    rng = np.random.default_rng(1)
    residual = rng.permutation(spec.hidden_size)
    inside = [rng.permutation(spec.intermediate_size) for _ in range(spec.num_layers)]
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = _shuffled(tensor.name, values, residual, inside)
        writer.add_tensor(tensor.name, values.astype(np.float16) if values.ndim == 2 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shuffled(name: str, values: np.ndarray, residual: np.ndarray, inside: list[np.ndarray]) -> np.ndarray:
    parts = name.split(".")
    kind = parts[2] if parts[0] == "blk" else parts[0]
    if values.ndim == 1:
        return values if kind.endswith(("_q", "_k", "_v", "q_norm", "k_norm")) else values[residual]
    if kind in FROM_RESIDUAL:
        values = values[:, residual]
    if kind in TO_RESIDUAL:
        values = values[residual]
    if kind in ("ffn_gate", "ffn_up"):
        values = values[inside[int(parts[1])]]
    if kind == "ffn_down":
        values = values[:, inside[int(parts[1])]]
    return np.ascontiguousarray(values)


def windows_of(checkpoint: Checkpoint, text: str, count: int) -> list[list[int]]:
    model = TextModel.from_checkpoint(checkpoint)
    try:
        ids = model.tokenizer.encode(text)
    finally:
        model.close()
    return [ids[at : at + WINDOW] for at in range(0, count * WINDOW, WINDOW)]


def bits_per_weight(checkpoint: Checkpoint) -> float:
    tensors = checkpoint.tensors.values()
    return 8 * sum(tensor.num_bytes for tensor in tensors) / sum(tensor.num_elements for tensor in tensors)


def candidates(floats: Path, folder: Path, calibration: Path, llama_quantize: Path | None) -> dict[str, Path]:
    """Name → file, each made here."""
    made = {}
    for target in OURS:
        for text in (None, calibration) if target != "Q8_0" else (None,):
            name = f"ours {target}" + (", calibrated" if text else "")
            made[name] = folder / f"{name}.gguf"
            Job.prepare(open_checkpoint(floats), made[name], target, text=text).run(lambda what, fraction: None)
    for target in THEIRS if llama_quantize else ():
        made[f"llama.cpp {target}"] = folder / f"llama.cpp {target}.gguf"
        command = [str(llama_quantize), str(floats), str(made[f"llama.cpp {target}"]), target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return made


def row(name: str, path: Path, found: Comparison) -> str:
    before, after = found.perplexity_before, found.perplexity_after
    return (
        f"| {name} | {bits_per_weight(open_checkpoint(path)):.2f} | {found.mean_kl:.4f} | {found.same_top_token:.1%} "
        f"| {after:.3f} ({after / before - 1:+.1%}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--llama-quantize", type=Path, help="llama.cpp's program; without it only ours are made")
    parser.add_argument("--windows", type=int, default=24, help=f"of {WINDOW} tokens, to compare on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floats, calibration = folder / "floats.gguf", folder / "calibration.txt"
        write_shuffled_floats(options.model, floats)
        text = prose()
        half = len(text) // 2
        calibration.write_text(text[half:], encoding="utf-8")
        judge = open_checkpoint(floats)
        windows = windows_of(judge, text[:half], options.windows)
        print("| weights | bits a weight | mean KL | same likeliest token | perplexity |\n|---|---|---|---|---|")
        for label, path in candidates(floats, folder, calibration, options.llama_quantize).items():
            print(row(label, path, compare(judge, open_checkpoint(path), windows)), flush=True)
    print(f"\n{options.windows} windows of {WINDOW} tokens of {options.model.name}'s text", file=sys.stderr)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Every kind of checkpoint that is served, tried: writes the tables of docs/checkpoints.md.

    python benchmarks/checkpoints.py            # both tables; needs the demo model and the extra `fidelity`
    python benchmarks/checkpoints.py --only GPTQ
    python benchmarks/checkpoints.py --tiny     # the first alone
    python benchmarks/checkpoints.py --llama-quantize BUILD/bin/llama-quantize    # its files of SmolLM2, too

The first table has a seeded random model of each architecture in each format, written to disk, loaded and run, its
logits beside those of float32 arithmetic on the same weights. The second has SmolLM2 in each format that can be written
here or by llama.cpp, on English prose. Writers are those of the tests (tests/helpers).
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from quantized_folders import Scheme, write_quantized_folder  # noqa: E402
from tiny_folders import write_random_folder, write_random_gguf  # noqa: E402
from tiny_models import scheduled  # noqa: E402

from antiphon.checkpoint import TENSOR_TYPES, Checkpoint  # noqa: E402
from antiphon.config import EngineConfig  # noqa: E402
from antiphon.formats import open_checkpoint  # noqa: E402
from antiphon.runtime.cpu import CpuRunner, create_runner  # noqa: E402
from antiphon.runtime.reference import ReferenceRunner  # noqa: E402
from antiphon.step import Runner, StepPlan  # noqa: E402

DOCUMENT = ROOT / "docs" / "checkpoints.md"
EVERY_FORMAT, SMOLLM2 = "every format", "SmolLM2"  # the document's tables
PROMPT = np.random.default_rng(8).integers(0, 1500, 90).tolist()
# Column → architecture, and the class that a folder names.
ARCHITECTURES = {
    "Llama": ("llama", "LlamaForCausalLM"),
    "Mistral": ("llama", "MistralForCausalLM"),
    "Qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "Qwen3": ("qwen3", "Qwen3ForCausalLM"),
}
TINY = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "head_dim": 64,
}  # K-quants have blocks of 256
UNWRITABLE = ("Q4_K", "Q5_K", "Q6_K", "IQ4_XS")  # no package writes them; tiny models get noise
SCHEMES = {
    "AWQ": Scheme("awq", group_size=64),
    "GPTQ": Scheme("gptq", group_size=64),
    "GPTQ, symmetric": Scheme("gptq", group_size=64, symmetric=True),
    "GPTQ, symmetric, act-order": Scheme("gptq", group_size=64, symmetric=True, act_order=True),
    "GPTQ v2": Scheme("gptq_v2", group_size=64),
    "GPTQ, 8 bits, symmetric": Scheme("gptq", bits=8, group_size=64, symmetric=True),
    "compressed-tensors W4A16": Scheme("pack", group_size=64, symmetric=True, scales="BF16"),
    "compressed-tensors W4A16, asymmetric": Scheme("pack", group_size=64, scales="BF16"),
    "compressed-tensors W8A16": Scheme("pack", bits=8, group_size=-1, symmetric=True, scales="BF16"),
    "compressed-tensors W8A8": Scheme("int", bits=8, group_size=-1, symmetric=True, scales="BF16"),
}


@dataclass(frozen=True)
class Format:
    """A row: how a model is written, and how floats are to be quantized while it is loaded."""

    name: str
    kind: str  # "gguf", "folder", "llama.cpp" or a key of SCHEMES
    type: str = ""
    quantization: str = "auto"

    @property
    def on_smollm2(self) -> bool:
        """F32 and F16 would say no more than BF16 does."""
        return self.kind == "llama.cpp" or self.type not in (*UNWRITABLE, "F32", "F16")

    def write_tiny(self, path: Path, column: str) -> tuple[Path, Checkpoint]:
        """The file or folder, and a checkpoint that has what it stands for."""
        architecture, class_name = ARCHITECTURES[column]
        if self.kind == "gguf":
            path = write_random_gguf(path.with_suffix(".gguf"), architecture, type=self.type, **TINY)
            return path, open_checkpoint(path)
        if self.kind == "folder":
            window = {"sliding_window": 512} if column == "Mistral" else {}
            write_random_folder(path, architecture, type=self.type, config_class=class_name, **TINY, **window)
            return path, open_checkpoint(path)
        fields = {"architectures": [class_name], "sliding_window": 512}
        return path, write_quantized_folder(path, SCHEMES[self.kind], architecture, **fields)


FORMATS = [
    *(Format(f"GGUF {name}", "gguf", name, "w8") for name in TENSOR_TYPES),
    *(Format(f"folder {name}, in 8 bits", "folder", name, "w8") for name in ("F32", "F16", "BF16")),
    *(Format(f"folder {name}, in 4 bits", "folder", name, "w4") for name in ("F32", "F16", "BF16")),
    *(Format(name, name, quantization="w8") for name in SCHEMES),
]
# As people have them: llama.cpp's choice of a type for each tensor, K-quants where they fit the rows.
LLAMA_CPP = [
    Format(f"GGUF {name}, by llama.cpp", "llama.cpp", name)
    for name in ("IQ4_XS", "IQ4_NL", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K")
]


def logits_of(runner: Runner) -> np.ndarray:
    runner.execute(StepPlan([scheduled(PROMPT, [5, 2, 9])]))
    return runner.logits()[0].copy()


def load(path: Path, quantization: str, **more: Any) -> CpuRunner:
    return create_runner(EngineConfig(str(path), quantization=quantization, **more))


def tiny_error(form: Format, column: str) -> float:
    """The root mean square of the logits' error, as a share of their spread."""
    with tempfile.TemporaryDirectory() as folder:
        path, truth = form.write_tiny(Path(folder) / "tiny", column)
        wanted = logits_of(ReferenceRunner(truth))
        seen = logits_of(load(path, form.quantization, kv_cache_tokens=1024))
    return float(np.sqrt(np.mean((seen - wanted) ** 2)) / wanted.std())


def tiny_row(form: Format) -> str:
    cells = [f"{tiny_error(form, column):.2%}" for column in ARCHITECTURES]
    return f"| {form.name} | {' | '.join(cells)} |"


def put(row: str, table: str) -> None:
    """Put a row in its place in a table of the document: that of its name, else the last."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(f"<!-- {table} -->\n")
    rows, after = rest.split("<!-- end -->", 1)
    lines = rows.splitlines()
    names = [line.split("|")[1] if line.startswith("|") else "" for line in lines]
    name = row.split("|")[1]
    at = names.index(name) if name in names else len(lines)
    lines[at : at + 1] = [row]
    DOCUMENT.write_text(f"{before}<!-- {table} -->\n" + "\n".join(lines) + f"\n<!-- end -->{after}", encoding="utf-8")
    print(row, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="formats that match this regular expression")
    parser.add_argument("--tiny", action="store_true", help="the first table alone, without SmolLM2 and PyTorch")
    parser.add_argument("--llama-quantize", type=Path, help="llama.cpp's program, for rows of files that it wrote")
    chosen = parser.parse_args()
    formats = [form for form in FORMATS if re.search(chosen.only, form.name)]
    for form in formats:
        put(tiny_row(form), EVERY_FORMAT)
    if chosen.tiny:
        return
    from requantized import rows

    theirs = [form for form in LLAMA_CPP if chosen.llama_quantize and re.search(chosen.only, form.name)]
    for row in rows([*(form for form in formats if form.on_smollm2), *theirs], chosen.llama_quantize):
        put(row, SMOLLM2)


if __name__ == "__main__":
    main()

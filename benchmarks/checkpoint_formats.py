"""The formats that `checkpoints` tries: how a model is written in each, and how it is loaded."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from quantized_folders import Scheme, write_quantized_folder  # noqa: E402
from tiny_folders import write_random_folder, write_random_gguf  # noqa: E402

from antiphon.checkpoint import TENSOR_TYPES, Checkpoint  # noqa: E402
from antiphon.config import EngineConfig  # noqa: E402
from antiphon.formats import open_checkpoint  # noqa: E402
from antiphon.loading.assembly import planned_for_this_machine  # noqa: E402
from antiphon.runtime.cpu import CpuRunner, create_runner  # noqa: E402

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


def load(path: Path, quantization: str, **more: Any) -> CpuRunner:
    return create_runner(planned_for_this_machine(EngineConfig(str(path), quantization=quantization, **more)))

"""A checkpoint as plain data: settings, named tensors that are read lazily, the tokenizer's data. A leaf.

`formats` makes a Checkpoint from a file or folder; `models` turns settings and tensors into weights; `text` builds the
tokenizer and the chat template. Neither of these needs to know the format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antiphon.model_files import ModelFiles

# Bytes and weights of one block of each storage type, as in GGUF's own table.
TENSOR_TYPES: dict[str, tuple[int, int]] = {
    "F32": (4, 1),
    "F16": (2, 1),
    "BF16": (2, 1),
    "Q4_0": (18, 32),
    "Q4_1": (20, 32),
    "Q5_0": (22, 32),
    "Q5_1": (24, 32),
    "Q8_0": (34, 32),
    "Q4_K": (144, 256),
    "Q5_K": (176, 256),
    "Q6_K": (210, 256),
    "IQ4_NL": (18, 32),
    "IQ4_XS": (136, 256),
}
# A type of our own, for matrices with zero points: a Q4_1 block whose codes count from the middle one, 8. The minimum,
# added to scale * (code - 8), is a small multiple of the scale, which half precision usually represents exactly.
OWN_TYPES: dict[str, tuple[int, int]] = {"Q4_ZP": (20, 32)}
# Types in which Hugging Face folders store quantized matrices; no kernel computes with them.
INTEGER_TYPES: dict[str, tuple[int, int]] = {"I8": (1, 1), "U8": (1, 1), "I32": (4, 1), "I64": (8, 1)}


def block_of(type: str) -> tuple[int, int]:
    """Bytes and weights of one block."""
    return TENSOR_TYPES.get(type) or OWN_TYPES.get(type) or INTEGER_TYPES[type]


@dataclass(frozen=True, slots=True)
class Source:
    """How the file stores a tensor that it keeps in quantized parts."""

    scheme: str  # "awq", "gptq", "compressed-tensors"
    num_bytes: int  # in the file


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor of a checkpoint; its bytes stay in the memory map until they are read."""

    name: str
    shape: tuple[int, ...]  # row-major: (rows, columns) for a matrix, so columns are contiguous
    type: str  # a key of TENSOR_TYPES, OWN_TYPES or INTEGER_TYPES
    read: Callable[[], memoryview]  # exactly `num_bytes` bytes, read-only
    release: Callable[[], None] = lambda: None  # call when it will not be read again soon, so memory can be freed
    source: Source | None = None  # None: the file has these bytes
    column_order: tuple[int, ...] | None = None  # the original column at each place of a row; None: in order

    @property
    def num_elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def num_bytes(self) -> int:
        size, block = block_of(self.type)
        return self.num_elements // block * size


@dataclass(frozen=True, slots=True)
class TokenizerData:
    """The data a tokenizer is built from: a tokenizer.json, or GGUF's vocabulary with merges or scores."""

    tokenizer_json: bytes | None = None
    num_rows: int | None = None  # of the model's embedding, where a tokenizer.json may have more tokens
    tokens: list[str] = field(default_factory=list)  # in id order, in GPT-2's byte alphabet or SentencePiece's
    token_types: list[int] = field(
        default_factory=list
    )  # GGUF's: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    merges: list[str] = field(default_factory=list)  # "left right"; of a byte-level BPE
    scores: list[float] = field(default_factory=list)  # of each token, the highest merged first; of SentencePiece's BPE
    add_space_prefix: bool = False  # whether SentencePiece puts a space before a text
    pre_tokenizer: str = ""  # GGUF's `tokenizer.ggml.pre`
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()  # all ids that end a turn; the first is the tokenizer's own
    add_bos: bool = False  # whether plain text is encoded with BOS in front


@dataclass(frozen=True, slots=True)
class Note:
    """A problem in a checkpoint that can be served nevertheless."""

    wrong: str  # the problem
    done: str  # what is done about it


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk, not yet loaded."""

    path: Path
    format: str  # "gguf" or "safetensors"
    name: str  # from the file's metadata, or the file name's stem
    architecture: str  # "llama", "qwen2", "qwen3": GGUF's names
    # The architecture's numbers under Hugging Face's config.json names; for `rope_scaling` see formats/rope_scaling.py.
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]  # under the checkpoint's own names
    tokenizer: TokenizerData
    chat_template: str | None = None
    # temperature, top_p, top_k … that the publisher recommends; used for requests that set none
    generation_defaults: Mapping[str, float | int] = field(default_factory=dict)
    # The files it was read from; none for a checkpoint made in memory.
    files: ModelFiles = field(default_factory=ModelFiles, compare=False, repr=False)
    quantized_by: str | None = None  # quantization method of a folder with quantized matrices; for display
    notes: tuple[Note, ...] = ()

"""The least time that a step can take on a machine, from the bytes it reads and the products it computes.

Owns the counting; the caller measures the machine's rates. A part of a step takes at least as long as reading its bytes
at the rate of memory, and as long as its products of 8-bit integers at the peak of the instruction set. Norms, sampling
and Python count as nothing: a better program could do them at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from antiphon.checkpoint import Tensor
from antiphon.footprint import EMBEDDINGS, HEADS, kv_bytes_per_token, weight_bytes
from antiphon.formats import open_checkpoint
from antiphon.models.spec import ModelSpec

CORRECTED_LOGITS = 64 * 32  # of a row: those to which the activations' low plane is added (native/lm_head.h)


@dataclass(frozen=True)
class Work:
    """What one part of a step needs of the machine."""

    bytes: float
    products: float

    def seconds(self, peaks: dict[str, float]) -> float:
        return max(self.bytes / peaks["bytes"], self.products / peaks["products"])

    def binds(self, peaks: dict[str, float]) -> str:
        """What limits the part: memory or products."""
        return "memory" if self.bytes / peaks["bytes"] > self.products / peaks["products"] else "products"


@dataclass(frozen=True)
class Model:
    """The sizes of a checkpoint that count in a step."""

    spec: ModelSpec
    layers: Work  # of one token
    head: Work  # of one token
    kv_bytes: int  # of one token

    @classmethod
    def of(cls, path: Path, kv_cache_type: str, wide: bool) -> Model:
        """`wide`: activations of two planes everywhere."""
        checkpoint = open_checkpoint(path)
        spec = ModelSpec.from_checkpoint(checkpoint)
        matrices = [tensor for tensor in checkpoint.tensors.values() if len(tensor.shape) == 2]
        heads = [tensor for tensor in matrices if tensor.name in (EMBEDDINGS if spec.tied_head else HEADS)]
        layers = [tensor for tensor in matrices if tensor.name not in EMBEDDINGS + HEADS]
        kv_bytes = kv_bytes_per_token(checkpoint.settings, kv_cache_type)
        corrected = min(CORRECTED_LOGITS, spec.vocab_size) / spec.vocab_size
        tied = spec.tied_head
        return cls(spec, _multiplied(layers, 2 if wide else 1, tied), _multiplied(heads, 1 + corrected, tied), kv_bytes)

    def step(self, users: int, context: int, tokens: int) -> dict[str, Work]:
        """By part, of a step in which each user computes `tokens` tokens after `context` others and draws one."""
        rows, spec = users * tokens, self.spec
        seen = users * sum(context + i + 1 for i in range(tokens))  # keys that all tokens look at together
        scores = 2 * spec.num_layers * spec.num_heads * spec.head_dim * seen  # a product with K, one with V
        return {
            "linear": Work(self.layers.bytes, self.layers.products * rows),
            "attention": Work(users * context * self.kv_bytes, scores),
            "head": Work(self.head.bytes, self.head.products * users),
        }


def _multiplied(matrices: list[Tensor], parts: float, tied: bool) -> Work:
    sizes = weight_bytes(matrices, tied=tied)
    return Work(sizes.w4 + sizes.w8, parts * sum(tensor.num_elements for tensor in matrices))

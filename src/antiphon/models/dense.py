"""The dense decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3): its weights, and its forward pass over `Ops`.

The pass is written once. What a member of the family lacks (biases, norms of query and key heads, a head of its own) is
absent from its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.models.names import TensorFinder
from antiphon.models.spec import ModelSpec
from antiphon.ops.base import Matrix, Ops, Table, Value, Vector


@dataclass(frozen=True, slots=True)
class LayerWeights:
    index: int
    attention_norm: Vector
    qkv: Matrix
    qk_norm: tuple[Vector, Vector] | None
    attention_out: Matrix
    mlp_norm: Vector
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True, slots=True)
class Weights:
    embedding: Table
    layers: list[LayerWeights]
    norm: Vector
    head: Matrix


def forward(ops: Ops, weights: Weights) -> Value:
    """The whole decoder: the step's tokens in, logits of the sampled rows out."""
    x = ops.embed(weights.embedding)
    for layer in weights.layers:
        h = ops.linear(ops.rms_norm(x, layer.attention_norm), layer.qkv)
        h = ops.attention(h, layer.index, layer.qk_norm)
        x = ops.add(x, ops.linear(h, layer.attention_out))
        h = ops.linear(ops.rms_norm(x, layer.mlp_norm), layer.gate_up)
        x = ops.add(x, ops.linear(ops.silu_mul(h), layer.down))
    return ops.logits(ops.rms_norm(ops.sampled_rows(x), weights.norm), weights.head)


def load_weights(
    ops: Ops, checkpoint: Checkpoint, spec: ModelSpec, on_progress: Callable[[float], None] = lambda fraction: None
) -> Weights:
    """Convert the checkpoint's tensors to the backend's form; `on_progress` gets the fraction done.

    Raises CheckpointError, naming the tensor, for what is missing, misshapen or not a finite number.
    """
    finder = TensorFinder(checkpoint, spec)
    layers = []
    for index in range(spec.num_layers):
        on_progress(index / (spec.num_layers + 1))
        layers.append(_load_layer(ops, finder, index))
    on_progress(spec.num_layers / (spec.num_layers + 1))
    embedding = finder.find("embedding", (spec.vocab_size, spec.hidden_size))
    head = embedding if spec.tied_head else finder.find("head", (spec.vocab_size, spec.hidden_size))
    weights = Weights(
        embedding=ops.table(embedding),
        layers=layers,
        norm=ops.vector(finder.find("norm", (spec.hidden_size,))),
        head=ops.matrix([head]),
    )
    finder.refuse_leftovers()
    on_progress(1.0)
    return weights


def check_tensors(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError, naming it, for a tensor that is missing, has another shape or is not used; reads none.

    Biases that are not used are read, and ignored if they are zero.
    """
    load_weights(cast("Ops", _Unread()), checkpoint, ModelSpec.from_checkpoint(checkpoint))


class _Unread:
    """Takes weights and leaves them where they are."""

    def matrix(self, parts: Sequence[Tensor], bias: Sequence[Tensor] = (), *, interleave: bool = False) -> None: ...

    def vector(self, tensor: Tensor) -> None: ...

    def table(self, tensor: Tensor) -> None: ...


def _load_layer(ops: Ops, finder: TensorFinder, index: int) -> LayerWeights:
    spec = finder.spec
    hidden, query, kv = spec.hidden_size, spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    rows = {"q": query, "k": kv, "v": kv}
    biased = finder.has("q_bias", index)
    return LayerWeights(
        index=index,
        attention_norm=ops.vector(finder.find("attention_norm", (hidden,), index)),
        qkv=ops.matrix(
            [finder.find(name, (count, hidden), index) for name, count in rows.items()],
            [finder.find(f"{name}_bias", (count,), index) for name, count in rows.items()] if biased else (),
        ),
        qk_norm=_load_qk_norm(ops, finder, index) if spec.has_qk_norm else None,
        attention_out=ops.matrix([finder.find("attention_out", (hidden, query), index)]),
        mlp_norm=ops.vector(finder.find("mlp_norm", (hidden,), index)),
        gate_up=ops.matrix(
            [finder.find(name, (spec.intermediate_size, hidden), index) for name in ("gate", "up")], interleave=True
        ),
        down=ops.matrix([finder.find("down", (hidden, spec.intermediate_size), index)]),
    )


def _load_qk_norm(ops: Ops, finder: TensorFinder, index: int) -> tuple[Vector, Vector]:
    q_norm, k_norm = (finder.find(name, (finder.spec.head_dim,), index) for name in ("q_norm", "k_norm"))
    return ops.vector(q_norm), ops.vector(k_norm)

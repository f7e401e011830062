"""Where a checkpoint keeps its tensors: the names of each format, and the order of rows that our kernels expect.

Our rotary embedding rotates dimension i together with i + head_dim / 2, as Hugging Face's models do. GGUF files of the
Llama architecture interleave the two in Q and K; their rows are put back in order here, when they are read.

A tensor that the forward pass ignores would silently make the answers wrong, so `TensorFinder` records which ones it
returned and refuses the rest by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.errors import CheckpointError
from antiphon.models.spec import ModelSpec

_GGUF = {
    "embedding": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
    "attention_norm": "blk.{}.attn_norm.weight",
    "q": "blk.{}.attn_q.weight",
    "k": "blk.{}.attn_k.weight",
    "v": "blk.{}.attn_v.weight",
    "q_norm": "blk.{}.attn_q_norm.weight",
    "k_norm": "blk.{}.attn_k_norm.weight",
    "q_bias": "blk.{}.attn_q.bias",
    "k_bias": "blk.{}.attn_k.bias",
    "v_bias": "blk.{}.attn_v.bias",
    "attention_out": "blk.{}.attn_output.weight",
    "mlp_norm": "blk.{}.ffn_norm.weight",
    "gate": "blk.{}.ffn_gate.weight",
    "up": "blk.{}.ffn_up.weight",
    "down": "blk.{}.ffn_down.weight",
}
_HUGGING_FACE = {
    "embedding": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attention_norm": "model.layers.{}.input_layernorm.weight",
    "q": "model.layers.{}.self_attn.q_proj.weight",
    "k": "model.layers.{}.self_attn.k_proj.weight",
    "v": "model.layers.{}.self_attn.v_proj.weight",
    "q_norm": "model.layers.{}.self_attn.q_norm.weight",
    "k_norm": "model.layers.{}.self_attn.k_norm.weight",
    "q_bias": "model.layers.{}.self_attn.q_proj.bias",
    "k_bias": "model.layers.{}.self_attn.k_proj.bias",
    "v_bias": "model.layers.{}.self_attn.v_proj.bias",
    "attention_out": "model.layers.{}.self_attn.o_proj.weight",
    "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight",
    "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
}


_LAYER = re.compile(r"^(?:blk|model\.layers)\.(\d+)\.")
# Tensors that change nothing: tables of rotary angles, which are computed from the settings. `rope_freqs` was read into
# the settings when the file was opened.
_HARMLESS = re.compile(
    r"rope_freqs\.weight|.*\.attn_rot_embd\.weight|.*\.rotary_emb\.(?:inv_freq|cos_cached|sin_cached)"
)


@dataclass(frozen=True, slots=True)
class TensorFinder:
    """A checkpoint's tensors by our names, each checked against the shape that the spec calls for."""

    checkpoint: Checkpoint
    spec: ModelSpec
    _found: set[str] = field(default_factory=set)  # the checkpoint's names of the tensors that were returned

    def find(self, name: str, shape: tuple[int, ...], layer: int = 0) -> Tensor:
        """The tensor of our `name`; raises CheckpointError if it is missing or has another shape."""
        theirs = self._names[name].format(layer)
        tensor = self.checkpoint.tensors.get(theirs)
        if tensor is None:
            raise CheckpointError(f"tensor {theirs} is missing; the model is incomplete: download it again")
        if tensor.shape != shape:
            raise CheckpointError(
                f"tensor {theirs} has shape {list(tensor.shape)}, but the settings call for {list(shape)}"
            )
        self._found.add(theirs)
        return self._in_our_order(name, tensor)

    def has(self, name: str, layer: int = 0) -> bool:
        """Whether the checkpoint holds the tensor of our `name`."""
        return self._names[name].format(layer) in self.checkpoint.tensors

    def refuse_leftovers(self) -> None:
        """Raise CheckpointError, naming one, if the checkpoint has tensors that were not asked for and matter."""
        left = [name for name in self.checkpoint.tensors if name not in self._found and not self._is_harmless(name)]
        if not left:
            return
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        beyond = self._beyond(left)
        if beyond is not None:
            raise CheckpointError(
                f"tensor {beyond[:200]!r}{more} is beyond the {self.spec.num_layers} layers that the settings name; "
                "take the settings that belong to the weights"
            )
        raise CheckpointError(
            f"tensor {left[0][:200]!r}{more} has no place in the {self.spec.architecture} architecture as it is served "
            "here, and answers without it would be wrong; serve a model that does not have it"
        )

    def _beyond(self, names: Iterable[str]) -> str | None:
        """The first of a layer that the settings do not have."""
        layers = ((name, _LAYER.match(name)) for name in names)
        return next((name for name, layer in layers if layer and int(layer[1]) >= self.spec.num_layers), None)

    def _is_harmless(self, name: str) -> bool:
        # Some tools write a bias of zeros for every module.
        return bool(_HARMLESS.fullmatch(name)) or (
            name.endswith(".bias") and not any(self.checkpoint.tensors[name].read())
        )

    @property
    def _names(self) -> dict[str, str]:
        return _GGUF if self.checkpoint.format == "gguf" else _HUGGING_FACE

    def _in_our_order(self, name: str, tensor: Tensor) -> Tensor:
        interleaved = self.checkpoint.format == "gguf" and self.spec.architecture == "llama"
        if not interleaved or name not in ("q", "k", "q_bias", "k_bias"):
            return tensor
        return _deinterleaved(tensor, self.spec.head_dim)


def _deinterleaved(tensor: Tensor, head_dim: int) -> Tensor:
    """The same tensor with each head's rows 0, 2, 4 … before 1, 3, 5 …; copied when read."""

    def read() -> memoryview:
        rows = np.frombuffer(tensor.read(), np.uint8).reshape(-1, head_dim // 2, 2, tensor.num_bytes // tensor.shape[0])
        return memoryview(rows.swapaxes(1, 2).tobytes())

    return replace(tensor, read=read)

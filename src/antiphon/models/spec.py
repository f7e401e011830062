"""ModelSpec: the numbers of a decoder, read from a checkpoint's settings and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError
from antiphon.models import rope

_MOST = 1 << 24  # above any real size, below any overflow


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What every decoder of the Llama family is described by."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None  # as `models.rope` wants it
    context_length: int  # the most that its positions are made for
    tied_head: bool

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> ModelSpec:
        """Raises CheckpointError, naming the setting, for sizes that cannot be."""
        settings = checkpoint.settings
        spec = cls(
            architecture=checkpoint.architecture,
            hidden_size=_size(settings, "hidden_size"),
            intermediate_size=_size(settings, "intermediate_size"),
            num_layers=_size(settings, "num_hidden_layers"),
            num_heads=_size(settings, "num_attention_heads"),
            num_kv_heads=_size(settings, "num_key_value_heads"),
            head_dim=_size(settings, "head_dim"),
            vocab_size=_size(settings, "vocab_size"),
            rms_norm_eps=float(settings["rms_norm_eps"]),
            rope_theta=float(settings["rope_theta"]),
            rope_scaling=settings["rope_scaling"],
            context_length=_size(settings, "max_position_embeddings"),
            tied_head=bool(settings["tie_word_embeddings"]),
        )
        spec._check()
        return spec

    def _check(self) -> None:
        for name in ("hidden_size", "intermediate_size", "head_dim"):
            if getattr(self, name) % 32:
                raise CheckpointError(f"{name} is {getattr(self, name)}; it must be a multiple of 32 to be served")
        if self.num_heads % self.num_kv_heads:
            raise CheckpointError(
                f"num_attention_heads is {self.num_heads}, not a multiple of num_key_value_heads, {self.num_kv_heads}"
            )

    @property
    def has_qk_norm(self) -> bool:
        """Whether query and key heads are normed, each by itself."""
        return self.architecture == "qwen3"

    def rope_frequencies(self, longest: int) -> list[float]:
        """Radians a position, [head_dim / 2], where a sequence may have `longest` tokens."""
        return rope.rope_frequencies(self.rope_theta, self.head_dim, self.rope_scaling, longest)

    @property
    def rope_attention_factor(self) -> float:
        """What multiplies Q and K after they are turned."""
        return rope.rope_attention_factor(self.rope_scaling)


def _size(settings: Mapping[str, Any], name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or not 0 < value <= _MOST:
        raise CheckpointError(f"{name} is {value!r}; it must be a whole number from 1 to {_MOST}")
    return value

"""The reference runner: a whole model on `ops.reference`, for tests and for comparing other runners with.

It keeps float32 weights and a float32 KV cache, and runs the model's forward pass in NumPy at each step, so it is only
good for small models. Nothing selects it automatically.
"""

from __future__ import annotations

from antiphon.checkpoint import Checkpoint
from antiphon.models.dense import forward, load_weights
from antiphon.models.spec import ModelSpec
from antiphon.ops.reference import ReferenceOps
from antiphon.ops.reference_sampler import sample_reference
from antiphon.ops.reference_types import Array
from antiphon.step import StepPlan, StepResult


class ReferenceRunner:
    """A Runner in NumPy."""

    def __init__(self, checkpoint: Checkpoint, *, num_blocks: int = 64, block_size: int = 32) -> None:
        spec = ModelSpec.from_checkpoint(checkpoint)
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.vocab_size = spec.vocab_size
        self.context_length = min(spec.context_length, num_blocks * block_size)
        self.eos_token_ids = checkpoint.tokenizer.eos_token_ids
        self._ops = ReferenceOps(
            num_layers=spec.num_layers,
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            rope_frequencies=spec.rope_frequencies(spec.context_length),
            rope_attention_factor=spec.rope_attention_factor,
            epsilon=spec.rms_norm_eps,
            num_blocks=num_blocks,
            block_size=block_size,
        )
        self._weights = load_weights(self._ops, checkpoint, spec)
        self._logits: Array | None = None

    def execute(self, plan: StepPlan) -> StepResult:
        self._ops.begin(plan)
        self._logits = forward(self._ops, self._weights)
        sampled = [(sequence.sequence_id, spec) for sequence in plan.sequences for spec in sequence.samples]
        return StepResult(
            [sample_reference(row, spec, id) for row, (id, spec) in zip(self._logits, sampled, strict=True)]
        )

    def logits(self) -> Array:
        """The last step's logits, float32 [sampled rows, vocabulary]."""
        assert self._logits is not None, "no step has run"
        return self._logits

    def device_memory(self) -> None:
        """There is none but the machine's."""

    def describe(self) -> dict[str, str | int | float]:
        return {"device": "reference", "kv_cache_tokens": self.num_blocks * self.block_size}

    def close(self) -> None:
        """Nothing to do: memory goes with the runner."""

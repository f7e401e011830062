"""A runner whose logits a test chooses, to try the sampler through the whole engine's own way.

Its one layer adds nothing; token i's embedding is one-hot in group i, and the head keeps row i of the wanted logits as
the scales of its group i. So logits come out as asked for, up to half precision.
"""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from tiny_models import GREEDY, cpu_runner, scheduled, stored, tensor, tiny_model

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.step import SampledToken, SampleSpec, StepPlan

Array = npt.NDArray[np.float32]


class LogitRows:
    """Draws from `wanted` [rows, vocabulary]; `logits` is what the engine made of it."""

    def __init__(self, wanted: Array, instruction_set: str = "auto", *, threads: int = 1) -> None:
        self.count = len(wanted)
        self._embedding = bytearray()
        with patch("antiphon.ops.native.MAX_COPIED_EMBEDDING", -1):  # else `spoil` would change what nobody reads
            self._runner = cpu_runner(self._checkpoint(wanted), instruction_set, threads=threads, max_sequences=64)
        self.draw([(row, GREEDY) for row in range(self.count)])
        self.logits: Array = self._runner.logits()

    def draw(self, specs: list[tuple[int, SampleSpec]]) -> list[SampledToken]:
        """One token for each (row, how), all in one step; at most 64."""
        plan = [scheduled([row], [id], id=id, sample=spec) for id, (row, spec) in enumerate(specs)]
        return self._runner.execute(StepPlan(plan)).sampled

    def spoil(self, row: int, value: float) -> None:
        """Make a row's hidden state hold `value`, behind the back of the checks that loading makes."""
        width = len(self._embedding) // self._runner.vocab_size
        self._embedding[row * width : row * width + 4] = np.float32(value).tobytes()

    def _checkpoint(self, wanted: Array) -> Checkpoint:
        rows, vocabulary = wanted.shape
        width = 32 * rows
        settings = {"hidden_size": width, "vocab_size": vocabulary, "num_hidden_layers": 1, "intermediate_size": 32}
        model = tiny_model(type="F16", num_attention_heads=1, num_key_value_heads=1, **settings)
        embedding = np.zeros((vocabulary, width), np.float32)
        embedding[range(rows), range(0, width, 32)] = 1.0
        self._embedding = bytearray(embedding.tobytes())
        changed: list[Tensor] = [
            replace(tensor("model.embed_tokens.weight", embedding), read=lambda: memoryview(self._embedding)),
            tensor("model.norm.weight", np.full(width, 1 / np.sqrt(width), np.float32)),
            stored("lm_head.weight", (vocabulary, width), "Q8_0", _head(wanted)),
        ]
        for name, columns in (("self_attn.o_proj", 32), ("mlp.down_proj", 32)):
            changed.append(tensor(f"model.layers.0.{name}.weight", np.zeros((width, columns), np.float32)))
        return replace(model, tensors={**model.tensors, **{t.name: t for t in changed}})


def _head(wanted: Array) -> bytes:
    """[vocabulary] rows of groups: group i has scale wanted[i] and a single code, one."""
    scales = np.ascontiguousarray(wanted.T.astype(np.float16)).view(np.uint8).reshape(wanted.shape[1], -1, 2)
    codes = np.zeros((*scales.shape[:2], 32), np.uint8)
    codes[:, :, 0] = 1
    return np.concatenate([scales, codes], axis=2).tobytes()

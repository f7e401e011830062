"""Models of random weights, recorded into the GPU's program as `models.dense.forward` records a real one.

All layers get the same weights, each its own copy on the device, so that making them takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from antiphon import _native
from antiphon.ops.triton.buffers import ProgramShape
from antiphon.ops.triton.program import Program

BLOCK_BYTES = {"Q4_0": 18, "Q8_0": 34}


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    dim: int
    vocabulary: int

    def program_shape(self, *, num_layers: int, max_tokens: int, max_sequences: int, num_blocks: int) -> ProgramShape:
        return ProgramShape(
            max_tokens=max_tokens,
            max_sequences=max_sequences,
            vocabulary=self.vocabulary,
            num_layers=num_layers,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.dim,
            context_length=4096,
            num_blocks=num_blocks,
            rope_frequencies=[10_000.0 ** (-2 * i / self.dim) for i in range(self.dim // 2)],
        )

    def record(
        self,
        program: Program,
        host: _native.Device,
        type: str,
        *,
        num_layers: int,
        head_rows: int,
        wide: bool = False,
    ) -> int:
        """Record `num_layers` layers and a head with weights of `type`; returns the bytes of weights a step reads.

        `wide`: activations have two planes everywhere, as a small model's.
        """
        rng = np.random.default_rng(0)

        def matrix(rows: int, columns: int, type: str = type) -> _native.PackedMatrix:
            blocks = rng.integers(0, 256, (rows * columns // 32, BLOCK_BYTES[type]), dtype=np.uint8)
            blocks[:, :2] = np.array([0.002], np.float16).view(np.uint8)
            return host.pack([_native.StoredMatrix(blocks.tobytes(), type, rows, columns)])

        qkv_width = (self.heads + 2 * self.kv_heads) * self.dim
        qkv, out = matrix(qkv_width, self.hidden), matrix(self.hidden, self.heads * self.dim)
        gate_up, down = matrix(2 * self.inner, self.hidden), matrix(self.hidden, self.inner)
        head = matrix(head_rows, self.hidden, "Q8_0")
        self._record(program, num_layers, qkv, out, gate_up, down, head, wide)
        return num_layers * sum(each.num_bytes for each in (qkv, out, gate_up, down)) + head.num_bytes

    def _record(
        self,
        program: Program,
        num_layers: int,
        qkv: _native.PackedMatrix,
        out: _native.PackedMatrix,
        gate_up: _native.PackedMatrix,
        down: _native.PackedMatrix,
        head: _native.PackedMatrix,
        wide: bool,
    ) -> None:
        norm, bias = [1.0] * self.hidden, [0.5] * qkv.rows
        key_bias = np.zeros((self.kv_heads, self.dim), np.float32)
        key_bias[:, [3, 6, 3 + self.dim // 2, 6 + self.dim // 2]] = 5.0
        rows = np.random.default_rng(1).standard_normal((64, self.hidden)).astype(np.float32)
        table = _native.StoredMatrix(rows.tobytes(), "F32", 64, self.hidden)
        buffers: dict[str, int] = {
            "x": program.float_buffer(self.hidden, False),
            "normed": program.quantized_buffer(self.hidden, False, wide),
            "qkv": program.float_buffer(qkv.rows, False),
            "attended": program.quantized_buffer(self.heads * self.dim, False, wide),
            "activated": program.quantized_buffer(self.inner, False, wide),
            "drawn": program.float_buffer(self.hidden, True),
            "last": program.quantized_buffer(self.hidden, True, wide),
        }
        at: Callable[[str], int] = buffers.__getitem__
        program.embed(table, at("x"))
        for layer in range(num_layers):
            program.rms_norm(at("x"), norm, 1e-6, at("normed"))
            program.linear(at("normed"), qkv, bias, at("qkv"), False)
            program.attention(at("qkv"), layer, at("attended"), [], [], 1e-6, key_bias.reshape(-1).tolist())
            program.linear(at("attended"), out, [], at("x"), True)
            program.rms_norm(at("x"), norm, 1e-6, at("normed"))
            program.linear_silu_mul(at("normed"), gate_up, at("activated"))
            program.linear(at("activated"), down, [], at("x"), True)
        program.select_rows(at("x"), at("drawn"))
        program.rms_norm(at("drawn"), norm, 1e-6, at("last"))
        program.logits(at("last"), head)


R1 = ModelShape(hidden=1536, inner=8960, layers=28, heads=12, kv_heads=2, dim=128, vocabulary=151_936)
TINY = ModelShape(hidden=96, inner=160, layers=2, heads=6, kv_heads=2, dim=32, vocabulary=352)

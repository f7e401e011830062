"""Attention on a GPU: the KV pool, rotary tables and states, and the launches of a layer.

The kernels are in `attention`; `work` divides a step among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from antiphon import _native
from antiphon.ops.triton import attention as kernels
from antiphon.ops.triton.buffers import FloatBuffer, KeyBias, KvLayer, ProgramShape, QuantizedBuffer
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.inputs import StepInputs
from antiphon.ops.triton.tiles import Tiles, next_power_of_two
from antiphon.ops.triton.work import AttentionCut


class Attention:
    """The attention of every layer. It owns the KV cache."""

    def __init__(self, device: Device, shape: ProgramShape, tiles: Tiles, cut: AttentionCut) -> None:
        self._device, self._shape, self._tiles, self._cut = device, shape, tiles, cut
        self._size = next_power_of_two(shape.head_dim)
        self._run = shape.head_dim & -shape.head_dim  # of the Hadamard transform
        self._pool = self._allocate_pool()
        cosines, sines = _native.rotary_tables(
            list(shape.rope_frequencies), shape.rope_attention_factor, shape.context_length
        )
        self._cosines, self._sines = device.upload(cosines), device.upload(sines)
        self._terms: Tensor | None = None  # of key biases
        heads, dim, most_planes = shape.num_kv_heads, shape.head_dim, 2
        queries = shape.max_tokens * shape.num_heads
        self._q_codes = device.zeros((queries * most_planes * dim,), "int8")
        self._q_scales = device.zeros((queries * dim // 32,), "float32")
        state_rows = shape.max_tokens * (shape.num_heads // heads) + cut.split_rows
        self._state_outputs = device.zeros((state_rows * heads * dim,), "float32")
        self._state_sums = device.zeros((state_rows * heads * 16,), "float32")
        self._state_maxima = device.zeros((state_rows * heads,), "float32")

    def _allocate_pool(self) -> list[KvLayer]:
        shape, device = self._shape, self._device
        heads, dim, tokens = shape.num_kv_heads, shape.head_dim, shape.num_blocks * 32
        return [
            KvLayer(
                device.zeros((tokens * heads * dim,), "int8"),
                device.zeros((tokens * heads * dim // 32,), "float16"),
                device.zeros((tokens * heads * dim,), "int8"),
                device.zeros((tokens * heads,), "float16"),
            )
            for _ in range(shape.num_layers)
        ]

    @property
    def block_bytes(self) -> int:
        """Of one KV block, all layers."""
        shape = self._shape
        values = shape.num_kv_heads * shape.head_dim * 32
        return shape.num_layers * (2 * values + 2 * (values // 32) + 2 * shape.num_kv_heads * 32)

    def launch(
        self,
        inputs: StepInputs,
        qkv: FloatBuffer,
        layer: int,
        out: QuantizedBuffer,
        norms: Sequence[Tensor],
        epsilon: float,
        bias: KeyBias | None,
    ) -> None:
        """Launch one layer. `norms`: of queries and keys, float32 [head_dim] each, or none."""
        kv = self._pool[layer]
        self._rope_and_store(inputs, qkv, kv, norms, epsilon, out.planes, bias)
        self._attend(inputs, "small_items", self._cut.small_rows, kv, out.planes, bias)
        self._attend(inputs, "large_items", self._cut.large_rows, kv, out.planes, bias)
        self._fold(inputs, out)

    def upload_key_bias(self, key_bias: npt.NDArray[np.float32]) -> KeyBias:
        shape, half = self._shape, self._shape.head_dim // 2
        heads = key_bias.reshape(shape.num_kv_heads, 2, half)
        pairs = [np.flatnonzero(head.any(axis=0)) for head in heads]
        width = next_power_of_two(max(map(len, pairs)))
        cosines, sines = _native.rotary_tables(list(shape.rope_frequencies), 1.0, 32)
        numbers = np.zeros((len(heads), width), np.int32)
        biases = np.zeros((2, len(heads), width), np.float32)
        turns = np.zeros((len(heads), 2, width, 32), np.float32)
        for h, chosen in enumerate(pairs):
            numbers[h, : len(chosen)] = chosen
            biases[:, h, : len(chosen)] = heads[h][:, chosen]
            turns[h, 0, : len(chosen)], turns[h, 1, : len(chosen)] = cosines[:, chosen].T, sines[:, chosen].T
        arrays = (numbers, biases[0], biases[1], turns, np.array([len(chosen) for chosen in pairs], np.int32))
        terms = shape.max_tokens * shape.num_heads * 2 * width  # layers share them, and the widest needs the most
        if self._terms is None or self._terms.shape[0] < terms:
            self._terms = self._device.zeros((terms,), "float32")
        return KeyBias(width, *map(self._device.upload, arrays))

    def _head_constants(self, planes: int, bias: KeyBias | None) -> dict[str, int]:
        shape = self._shape
        constants = {"HEADS": shape.num_heads, "KV_HEADS": shape.num_kv_heads, "DIM": shape.head_dim}
        return constants | {"SIZE": self._size, "PLANES": planes, "PAIRS": bias.width if bias else 0}

    def _rope_and_store(
        self,
        inputs: StepInputs,
        qkv: FloatBuffer,
        kv: KvLayer,
        norms: Sequence[Tensor],
        epsilon: float,
        planes: int,
        bias: KeyBias | None,
    ) -> None:
        shape, nothing = self._shape, self._cosines
        rotation = np.float32(1) / np.sqrt(np.float32(self._run))
        query_scale = rotation * (np.float32(1) / np.sqrt(np.float32(shape.head_dim)))
        query_norm, key_norm = norms or (nothing, nothing)
        nothings = (inputs["tokens"], nothing, nothing, nothing)
        biases = (bias.pairs, bias.first, bias.second, self._terms) if bias else nothings
        rows = inputs.num_tokens
        tile = self._tiles.rows(rows)
        self._device.launch(
            kernels.rope_and_store, (-(-rows // tile), shape.num_heads + shape.num_kv_heads),
            qkv.values, rows, inputs["positions"], inputs["blocks"], self._cosines, self._sines,
            query_norm, key_norm, epsilon, float(query_scale), float(rotation), self._q_codes, self._q_scales,
            *kv.tensors(), *biases, **self._head_constants(planes, bias), RUN=self._run, HAS_NORMS=bool(norms),
            ROWS=tile, warps=1,
        )  # fmt: skip

    def _attend(
        self, inputs: StepInputs, items: str, rows: int, kv: KvLayer, planes: int, bias: KeyBias | None
    ) -> None:
        count = inputs.counts[items]
        nothing, numbers = self._cosines, inputs["tokens"]
        biases = (self._terms, bias.turns, bias.pairs, bias.counts) if bias else (nothing, nothing, numbers, numbers)
        self._device.launch(
            kernels.attend, (count, self._shape.num_kv_heads), inputs[items], inputs["tables"],
            self._q_codes, self._q_scales, *kv.tensors(), self._cosines, self._sines, *biases, self._state_outputs,
            self._state_sums, self._state_maxima, **self._head_constants(planes, bias), ROWS=rows, STAGES=2,
            warps=4 if rows > 16 else 2,
        )  # fmt: skip

    def _fold(self, inputs: StepInputs, out: QuantizedBuffer) -> None:
        constants = self._head_constants(out.planes, None)
        del constants["PAIRS"]
        rows = inputs.num_tokens
        tile = self._tiles.rows(rows)
        self._device.launch(
            kernels.fold, (-(-rows // tile), self._shape.num_heads), inputs["states"], rows,
            inputs["positions"], self._state_outputs, self._state_sums, self._state_maxima, *out.arguments(),
            **constants, ROWS=tile, warps=1,
        )  # fmt: skip

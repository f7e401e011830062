"""Draws tokens on the device, for the rows whose parameters the kernels know (`sampling`).

Owns the buffers of the draw and the choice of kernels. A row with penalties, biases, a grammar's mask or
log-probabilities, many masked tokens or a large top_k is not drawn here: its logits are copied to the host for the
native sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.footprint import DRAW_FIELDS, RUN_TOKENS
from antiphon.ops.triton import likeliest
from antiphon.ops.triton import sampling as kernels
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.tiles import Tiles, next_power_of_two
from antiphon.step import SampleSpec

MOST_LIKELIEST = 128  # a larger top_k is for the native sampler
MOST_MASKED = 7
WALKS = 14  # four pivots divide the range by five at least: 5^14 is more than the 2^30 weights from 1e-37 to 1
_COLDEST = np.float32(1e-5)  # as in native/sampler.cpp


def is_drawable(spec: SampleSpec, vocabulary: int) -> bool:
    """Whether the kernels can draw by these parameters."""
    sampling = spec.sampling
    return (
        sampling.num_logprobs is None
        and not (sampling.needs_history or sampling.logit_bias or spec.step_logit_bias or spec.token_bitmask)
        and len(spec.masked_token_ids) <= MOST_MASKED
        and (sampling.top_k <= MOST_LIKELIEST or sampling.top_k >= vocabulary)
    )


# What the kernels draw where there is no token, and the native sampler's words for it.
ERRORS = {
    -1: "the model's logits are not finite numbers",
    -2: "the grammar, logit_bias and min_tokens of this request leave no token to choose",
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token drawn on the device; as `_native.SampleOutcome`."""

    token_id: int
    error: str | None = None
    logprob: float = 0.0
    top_token_ids: Sequence[int] = ()
    top_logprobs: Sequence[float] = ()


def drawn(token_id: int) -> Drawn:
    """What a kernel has drawn."""
    return Drawn(token_id) if token_id >= 0 else Drawn(-1, ERRORS[token_id])


@dataclass(frozen=True, slots=True)
class DrawKind:
    """What a step's rows need: it decides which kernels are launched."""

    by_weight: bool  # a row has neither top_k nor temperature zero
    filtered: bool  # one of those has top_p or min_p
    narrowed: bool  # one of those has top_p
    likeliest: bool  # a row has top_k or temperature zero
    masked: int  # tokens that are looked for in each row: all that a row can have, or none


def row_parameters(spec: SampleSpec, vocabulary: int) -> npt.NDArray[np.int32]:
    """The parameters of one row (`sampling`), int32 [16]."""
    row = np.full(DRAW_FIELDS, -1, np.int32)
    sampling = spec.sampling
    temperature, floats = np.float32(sampling.temperature), row.view(np.float32)
    is_greedy = temperature < _COLDEST
    row[0] = 1 if is_greedy else sampling.top_k if 0 < sampling.top_k < vocabulary else 0
    floats[1] = 1.0 if is_greedy else np.float32(1) / temperature
    floats[2], floats[3] = (1.0, 0.0) if is_greedy else (sampling.top_p, sampling.min_p)
    row[4:9].view(np.uint32)[:] = (
        sampling.seed & 0xFFFFFFFF,
        sampling.seed >> 32,
        spec.choice_index,
        spec.position & 0xFFFFFFFF,
        spec.position >> 32,
    )
    row[9 : 9 + len(spec.masked_token_ids)] = spec.masked_token_ids
    return row


def kind_of(parameters: npt.NDArray[np.int32]) -> DrawKind:
    """What rows of parameters [rows, 16] need."""
    by_weight = parameters[parameters[:, 0] == 0]
    top_p, min_p = by_weight[:, 2].view(np.float32), by_weight[:, 3].view(np.float32)
    is_masked = bool((parameters[:, 9:] >= 0).any())  # rows for the host have none
    return DrawKind(
        by_weight=len(by_weight) > 0,
        filtered=bool(((top_p < 1) | (min_p > 0)).any()),
        narrowed=bool((top_p < 1).any()),
        likeliest=bool((parameters[:, 0] > 0).any()),
        masked=MOST_MASKED if is_masked else 0,
    )


class Drawing:
    """The draw of up to `rows` tokens a step, from logits [rows, vocabulary] on the device."""

    def __init__(self, device: Device, tiles: Tiles, logits: Tensor, parameters: Tensor, tokens: Tensor) -> None:
        """`parameters`: int32 [rows, 16], see `sampling`. `tokens`: int32 [rows], where the drawn tokens go."""
        self._device, self._tiles = device, tiles
        self._logits, self._parameters, self._tokens = logits, parameters, tokens
        self._rows, self._vocabulary = logits.shape
        self._runs = -(-self._vocabulary // RUN_TOKENS)
        self._lines = min(RUN_TOKENS // 16, -(-self._vocabulary // 16))
        units = self._rows * self._runs
        self._maxima, self._sums, self._largest, self._kept = (device.zeros((units,), "float32") for _ in range(4))
        self._faults = device.zeros((units,), "int32")
        self._weights = device.zeros((self._rows, self._vocabulary), "float32")
        self._floors = device.zeros((self._rows,), "float32")
        self._ranges = device.zeros((2, self._rows, 2), "int32")
        self._pivot_sums = device.zeros((2, self._rows, 4, self._runs), "float32")

    def launch(self, rows: int, kind: DrawKind) -> None:
        """Launch the draw from the first rows of the logits, whose parameters are on the device."""
        units = self._tiles.sampling_units(rows * self._runs)
        grid, count = (-(-rows * self._runs // units),), rows * self._runs
        runs = {"RUNS": self._runs, "UNITS": units}
        span = min(RUN_TOKENS, next_power_of_two(self._vocabulary))
        whole = self._tiles.whole_runs(count)
        self._device.launch(
            kernels.summarize, (-(-count // whole),), self._logits, self._vocabulary, count, self._parameters,
            self._maxima, self._faults, RUNS=self._runs, UNITS=whole, SPAN=span, MASKED=kind.masked,
        )  # fmt: skip
        if kind.by_weight:
            self._launch_weights(rows, kind, grid, count, runs)
        if kind.likeliest:
            self._device.launch(
                likeliest.draw_likeliest, (rows,), self._logits, self._vocabulary, self._parameters, self._maxima,
                self._faults, self._tokens, RUNS=self._runs, ALL_RUNS=next_power_of_two(self._runs), SPAN=span,
                MASKED=kind.masked, MOST=MOST_LIKELIEST,
            )  # fmt: skip

    def _launch_weights(self, rows: int, kind: DrawKind, grid: Sequence[int], count: int, runs: dict[str, int]) -> None:
        all_runs = next_power_of_two(self._runs)
        self._device.launch(
            kernels.weigh, grid, self._logits, self._vocabulary, count, self._parameters, self._maxima, self._weights,
            self._sums, self._largest, **runs, ALL_RUNS=all_runs, LINES=self._lines, MASKED=kind.masked,
        )  # fmt: skip
        found = (
            self._parameters, self._weights, self._sums, self._largest, self._ranges, self._pivot_sums,
        )  # fmt: skip
        walks = WALKS if kind.narrowed else 0
        for walk in range(walks):
            self._device.launch(
                kernels.narrow, grid, walk, self._vocabulary, count, self._rows, *found, **runs, LINES=self._lines
            )
        if kind.filtered:
            self._device.launch(
                kernels.keep, grid, walks, self._vocabulary, count, self._rows, *found, self._kept, self._floors,
                **runs, LINES=self._lines,
            )  # fmt: skip
        tile = self._tiles.rows(rows)
        self._device.launch(
            kernels.draw_by_weight, (-(-rows // tile),), self._vocabulary, rows, self._parameters, self._maxima,
            self._faults, self._weights, self._sums, self._kept, self._floors, self._tokens, RUNS=self._runs,
            LINES=self._lines, ROWS=tile,
        )  # fmt: skip

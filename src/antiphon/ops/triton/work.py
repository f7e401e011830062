"""A step's inputs for the kernels: positions, KV blocks and attention's work items, as int32 arrays on the host.

Owns how attention is cut: into programs of a few query tokens, and one sequence's segments into several programs where
it has few tokens. Neither changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.ops.triton.tiles import next_power_of_two
from antiphon.step import ScheduledSequence

Array = npt.NDArray[np.int32]
BLOCK_TOKENS, SEGMENT_TOKENS = 32, 256
ITEM_FIELDS = 8


@dataclass(frozen=True, slots=True)
class AttentionCut:
    """How attention is divided among programs.

    `small_rows` and `large_rows`: rows of a program (query tokens times query heads a KV head) for sequences with few
    tokens and for the others; powers of two from 16 on. `split_rows`: state rows for sequences whose segments are
    computed apart; what does not fit is computed whole.
    """

    query_heads: int  # a KV head
    small_rows: int
    large_rows: int
    split_rows: int

    @classmethod
    def of(cls, query_heads: int, split_rows: int) -> AttentionCut:
        least = max(16, next_power_of_two(query_heads))
        return cls(query_heads, least, max(32, least), split_rows)

    @property
    def small_tokens(self) -> int:
        return self.small_rows // self.query_heads

    @property
    def large_tokens(self) -> int:
        return self.large_rows // self.query_heads


@dataclass(frozen=True, slots=True)
class StepWork:
    """The arrays of one step; kernels' docstrings say what they hold."""

    positions: Array  # [rows]
    blocks: Array  # [rows], the KV block that each row's K and V go to
    small_items: Array  # [items, 8]
    large_items: Array
    states: Array  # [rows, 4]
    num_state_rows: int


def plan_work(sequences: Sequence[ScheduledSequence], tables: Sequence[int], cut: AttentionCut) -> StepWork:
    """The work of a step over these sequences, whose rows follow each other.

    `tables`: where the block table of each begins on the device.
    """
    builder = _Builder(cut)
    for sequence, table_at in zip(sequences, tables, strict=True):
        builder.add(sequence, table_at)
    return builder.finished()


class _Builder:
    def __init__(self, cut: AttentionCut) -> None:
        self._cut = cut
        self._row = self._state_row = 0
        self._split_left = cut.split_rows
        self._positions: list[int] = []
        self._blocks: list[int] = []
        self._states: list[tuple[int, int, int, int]] = []
        self._items: tuple[list[list[int]], list[list[int]]] = ([], [])  # small, large

    def add(self, sequence: ScheduledSequence, table_at: int) -> None:
        first, count = sequence.num_computed_tokens, len(sequence.token_ids)
        positions = range(first, first + count)
        self._positions += positions
        self._blocks += [sequence.block_table[position // BLOCK_TOKENS] for position in positions]
        is_small = count <= self._cut.small_tokens
        tile = self._cut.small_tokens if is_small else self._cut.large_tokens
        for begin in range(0, count, tile):
            self._add_tile(self._row + begin, first + begin, min(tile, count - begin), table_at, is_small=is_small)
        self._row += count

    def _add_tile(self, row: int, position: int, tokens: int, table_at: int, *, is_small: bool) -> None:
        segments = (position + tokens - 1) // SEGMENT_TOKENS + 1
        rows = tokens * self._cut.query_heads
        is_split = is_small and segments > 1 and segments * rows <= self._split_left
        parts = [(i, i + 1) for i in range(segments)] if is_split else [(0, segments)]
        self._split_left -= segments * rows if is_split else 0
        for token in range(tokens):
            self._states.append((self._state_row + token * self._cut.query_heads, len(parts), rows, 0))
        for begin, end in parts:
            item = [row, tokens, position, table_at, begin, end, self._state_row, 0]
            self._items[0 if is_small else 1].append(item)
            self._state_row += rows

    def finished(self) -> StepWork:
        def array(values: object, width: int) -> Array:
            return np.array(values, np.int32).reshape(-1, width)

        return StepWork(
            positions=np.array(self._positions, np.int32),
            blocks=np.array(self._blocks, np.int32),
            small_items=array(self._items[0], ITEM_FIELDS),
            large_items=array(self._items[1], ITEM_FIELDS),
            states=array(self._states, 4),
            num_state_rows=self._state_row,
        )

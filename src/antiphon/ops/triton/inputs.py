"""A step's inputs on the device: what the kernels read beside weights and buffers.

Every input has a place of fixed size, and a decoding step is padded to a bucket (`graphs`), so that its launches depend
on the bucket alone. Padded rows are tokens 0 without a KV block, and nothing is drawn after them. The host writes to
pinned memory, in two sets that take turns: the copies of one step may still run while the next is prepared. Only block
tables stay on the device from step to step (`block_tables`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from antiphon.footprint import DRAW_FIELDS
from antiphon.ops.triton.block_tables import BlockTables
from antiphon.ops.triton.buffers import ProgramShape
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.graphs import Bucket, Buckets
from antiphon.ops.triton.work import BLOCK_TOKENS, ITEM_FIELDS, AttentionCut, plan_work
from antiphon.step import PENDING, ScheduledSequence

_WIDTHS = {"small_items": ITEM_FIELDS, "states": 4, "parameters": DRAW_FIELDS}  # values a row; else one
_FILLERS = {"blocks": -1, "parameters": -1}  # of padded rows; else zero


class StepInputs:
    """The inputs of one step at a time."""

    def __init__(self, device: Device, shape: ProgramShape, cut: AttentionCut, *, pads: bool = True) -> None:
        """`pads`: whether decoding steps are padded to a bucket."""
        self._device, self._shape, self._cut, self._pads = device, shape, cut, pads
        query_heads = shape.num_heads // shape.num_kv_heads
        items = shape.max_tokens + cut.split_rows // query_heads
        blocks = -(-shape.context_length // BLOCK_TOKENS)
        sizes = {
            "tokens": shape.max_tokens,
            "positions": shape.max_tokens,
            "blocks": shape.max_tokens,
            "tables": shape.max_sequences * blocks,
            "small_items": items * ITEM_FIELDS,
            "large_items": shape.max_tokens * ITEM_FIELDS,
            "states": shape.max_tokens * 4,
            "drawn_rows": shape.max_sequences,
            "parameters": shape.max_sequences * DRAW_FIELDS,
        }
        self._held = {name: device.zeros((size,), "int32") for name, size in sizes.items()}
        self._staged = [{name: device.pinned(size, "int32") for name, size in sizes.items()} for _ in range(2)]
        self._tables = BlockTables(shape.max_sequences, blocks, shape.num_blocks)
        self.buckets = Buckets(shape.max_sequences, items)
        self.bucket: Bucket | None = None  # of the step; None: it is not padded
        self.counts = {"small_items": 0, "large_items": 0}
        self.num_tokens = 0  # rows of the step, with padded ones
        self.num_drawn = 0  # rows of the part of the program that draws, with padded ones

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def put(self, name: str, array: npt.NDArray[np.int32], rows: int = 0) -> None:
        """Copy an array to the input of this name, padded to `rows`; the host does not wait."""
        staged = self._staged[0][name]
        values, flat = staged.numpy(), array.reshape(-1)
        size = max(flat.size, rows * _WIDTHS.get(name, 1))
        values[: flat.size] = flat
        values[flat.size : size] = _FILLERS.get(name, 0)
        self._device.send(self._held[name], staged, size)

    def _put_blocks(self, at: int, blocks: Sequence[int]) -> None:
        staged, count = self._staged[0]["tables"][at:], len(blocks)
        staged.numpy()[:count] = blocks
        self._device.send(self._held["tables"][at:], staged, count)

    def put_drawn(self, rows: Sequence[int]) -> None:
        """Send the rows after which a token is drawn."""
        self.num_drawn = self.bucket.rows if self.bucket else len(rows)
        self.put("drawn_rows", np.array(rows, np.int32), self.num_drawn)

    def take(self, sequences: Sequence[ScheduledSequence], drawn_places: dict[int, int]) -> list[int]:
        """Send a step; returns the rows after which a token is drawn, in the order of the sequences' samples.

        `drawn_places`: the row of the last draw, by sequence, whose token a pending one is. Raises ValueError if the
        step does not fit.
        """
        for sequence in sequences:
            self._check(sequence, drawn_places)
        num_tokens = sum(len(sequence.token_ids) for sequence in sequences)
        if num_tokens > self._shape.max_tokens or len(sequences) > self._shape.max_sequences:
            raise ValueError("the step is larger than the program was made for")
        self._staged.reverse()
        token_ids: list[int] = []
        rows: list[int] = []
        for sequence in sequences:
            # A pending token is read from the last draw: -1 stands for its row 0, -2 for row 1, and so on.
            token_ids += [-1 - drawn_places[sequence.sequence_id] if id == PENDING else id for id in sequence.token_ids]
            rows += range(len(token_ids) - len(sequence.samples), len(token_ids))
        work = plan_work(sequences, self._tables.update(sequences, self._put_blocks), self._cut)
        is_padded = self._pads and bool(rows) and num_tokens == len(sequences)
        self.bucket = self.buckets.of(num_tokens, len(work.small_items)) if is_padded else None
        padded = self.bucket or Bucket(num_tokens, len(work.small_items))
        self.num_tokens = padded.rows
        self.counts = {"small_items": padded.items, "large_items": len(work.large_items)}
        self.put("tokens", np.array(token_ids, np.int32), padded.rows)
        for name in ("positions", "blocks", "states"):
            self.put(name, getattr(work, name), padded.rows)
        self.put("small_items", work.small_items, padded.items)
        self.put("large_items", work.large_items)
        return rows

    def _check(self, sequence: ScheduledSequence, drawn_places: dict[int, int]) -> None:
        """Raises ValueError for what the kernels would read or write out of bounds."""
        shape, count = self._shape, len(sequence.token_ids)
        end = sequence.num_computed_tokens + count
        if not (count and sequence.num_computed_tokens >= 0 and end <= shape.context_length):
            raise ValueError(f"tokens {sequence.num_computed_tokens} to {end} do not fit {shape.context_length}")
        if len(sequence.samples) > count:
            raise ValueError("more tokens are to be drawn than computed")
        if len(sequence.block_table) * BLOCK_TOKENS < end:
            raise ValueError("the block table does not fit the sequence")
        self._tables.check(sequence)
        is_known = sequence.sequence_id in drawn_places
        for token_id in sequence.token_ids:
            if not (0 <= token_id < shape.vocabulary or (token_id == PENDING and is_known)):
                raise ValueError("a token id is outside the vocabulary")

"""Block tables that stay on the device: a step sends only what has changed since the last.

A sequence has a row of the table, and keeps it while it is computed. Most steps change nothing in it; every 32nd token
adds a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from antiphon.step import ScheduledSequence

Write = Callable[[int, Sequence[int]], None]  # (where in the table, blocks)


class BlockTables:
    """Which row each sequence has, and what the rows hold. `rows`: at least the sequences of a step."""

    def __init__(self, rows: int, width: int, num_blocks: int) -> None:
        self._width, self._num_blocks = width, num_blocks
        self._held: list[list[int]] = [[] for _ in range(rows)]
        self._rows: dict[int, int] = {}
        self._free = list(range(rows))

    def check(self, sequence: ScheduledSequence) -> None:
        """Raises ValueError for a block that is not in the pool. Call it before `update`."""
        row, blocks = self._rows.get(sequence.sequence_id), sequence.block_table[: self._width]
        is_held = row is not None and self._held[row] == blocks
        if not (is_held or all(0 <= block < self._num_blocks for block in blocks)):
            raise ValueError("the block table does not fit the pool")

    def update(self, sequences: Sequence[ScheduledSequence], write: Write) -> list[int]:
        """Write what has changed; returns where the table of each sequence begins."""
        ids = {sequence.sequence_id for sequence in sequences}
        if len(ids - self._rows.keys()) > len(self._free):
            for id in self._rows.keys() - ids:
                self._free.append(self._rows.pop(id))
        return [self._updated(sequence, write) * self._width for sequence in sequences]

    def _updated(self, sequence: ScheduledSequence, write: Write) -> int:
        row = self._rows.get(sequence.sequence_id)
        if row is None:
            row = self._rows[sequence.sequence_id] = self._free.pop()
        held, blocks = self._held[row], sequence.block_table[: self._width]
        same = len(held) if blocks[: len(held)] == held else 0
        if same < len(blocks):
            write(row * self._width + same, blocks[same:])
            self._held[row] = blocks
        return row

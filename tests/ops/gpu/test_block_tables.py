"""The device's copy of the block tables, to which only changes are sent, holds every table of a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import scheduled

from antiphon.ops.triton.block_tables import BlockTables
from antiphon.step import ScheduledSequence

ROWS, WIDTH, BLOCKS = 3, 4, 9
TABLE = st.lists(st.integers(0, BLOCKS - 1), min_size=1, max_size=WIDTH + 1)  # the scheduler may have one to spare
# The sequences of a step, each with its table: a new one, or blocks that the last is continued by.
STEP = st.dictionaries(st.integers(0, 5), st.tuples(st.booleans(), TABLE), min_size=1, max_size=ROWS)


class Copy:
    """The table as the device has it, and how much was sent."""

    def __init__(self) -> None:
        self.values = np.full(ROWS * WIDTH, -1)
        self.sent = 0

    def write(self, at: int, blocks: list[int]) -> None:
        assert at % WIDTH + len(blocks) <= WIDTH
        self.values[at : at + len(blocks)] = blocks
        self.sent += len(blocks)


@given(st.lists(STEP, max_size=12))
def test_every_sequence_of_a_step_finds_its_blocks(steps: list[dict[int, tuple[bool, list[int]]]]) -> None:
    tables, copy, known = BlockTables(ROWS, WIDTH, BLOCKS), Copy(), dict[int, list[int]]()
    for step in steps:
        for id, (is_new, blocks) in step.items():
            if is_new or id not in known:
                known[id] = list(blocks)
            else:
                known[id] += blocks  # the scheduler's own list grows
        sequences = [scheduled([1], known[id], id=id) for id in step]
        for sequence in sequences:
            tables.check(sequence)
        starts = tables.update(sequences, copy.write)  # type: ignore[arg-type]
        assert len(set(starts)) == len(starts)
        for id, start in zip(step, starts, strict=True):
            table = known[id][:WIDTH]
            assert copy.values[start : start + len(table)].tolist() == table


def test_only_added_blocks_are_sent() -> None:
    tables, copy, blocks = BlockTables(ROWS, WIDTH, BLOCKS), Copy(), [4, 2]

    def sent(*sequences: ScheduledSequence) -> int:
        before = copy.sent
        tables.update(sequences, copy.write)  # type: ignore[arg-type]
        return copy.sent - before

    one, other = scheduled([1], blocks), scheduled([1], [5], id=1)
    assert [sent(one, other), sent(other, one)] == [3, 0]
    blocks.append(7)
    assert [sent(one), sent(other), sent(one)] == [1, 0, 0]
    assert sent(scheduled([1], [3, 2, 7])) == 3  # it was computed anew, elsewhere


def test_a_block_outside_the_pool_is_refused_also_where_a_known_table_grows() -> None:
    tables, copy, blocks = BlockTables(ROWS, WIDTH, BLOCKS), Copy(), [4]
    tables.update([scheduled([1], blocks)], copy.write)  # type: ignore[arg-type]
    for wrong in (BLOCKS, -1):
        with pytest.raises(ValueError, match="pool"):
            tables.check(scheduled([1], [*blocks, wrong]))
    tables.check(scheduled([1], blocks))

"""Gives each sequence the blocks that hold its keys and values, and shares blocks with equal contents.

Owns what is between a sequence and the pool: which blocks of a prompt are found in the prefix cache, which are new,
when a block is full and others can find it. The scheduler decides who gets blocks and who loses them; the pool counts
who holds them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from antiphon.engine.worker.blocks import BlockKey, BlockPool
from antiphon.engine.worker.sequence import Sequence


@dataclass(slots=True)
class PrefixCounts:
    """Tokens that were looked up in the prefix cache, and found there. They only grow."""

    num_queries: int = 0  # looked up when a sequence starts
    num_hits: int = 0  # found then or later


class KVCacheManager:
    """The blocks of all running sequences."""

    def __init__(self, pool: BlockPool) -> None:
        self.prefix = PrefixCounts()
        self._pool = pool

    # --- sequences get blocks, and give them back

    def can_start(self, sequence: Sequence, spare: int) -> bool:
        """Whether there are blocks for all tokens that a waiting sequence knows, and `spare` more."""
        return self._fits(sequence, self._find(sequence), spare)

    def start(self, sequence: Sequence, spare: int) -> bool:
        """Blocks for all tokens that a waiting sequence knows, found ones first; False: as `can_start`."""
        found = self._find(sequence)
        if not self._fits(sequence, found, spare):
            return False
        self._pool.hold(found)
        missing = self._pool.blocks_for(sequence.num_tokens) - len(found)
        sequence.block_table = found + self._pool.allocate(missing)
        self.prefix.num_queries += sequence.num_tokens
        self._count_hits(sequence, len(found))
        return True

    def grow(self, sequence: Sequence) -> bool:
        """Blocks for all known tokens of a running sequence; False, and no new block, where there is no room."""
        missing = self._pool.blocks_for(sequence.num_tokens) - len(sequence.block_table)
        if missing > self._pool.num_available:
            return False
        sequence.block_table += self._pool.allocate(missing)
        return True

    def grow_for_draft(self, sequence: Sequence, wanted: int, spare: int) -> int:
        """Blocks for drafted tokens, if that leaves `spare` blocks; returns how many of the tokens have room."""
        room = len(sequence.block_table) * self._pool.block_size - sequence.num_tokens
        missing = self._pool.blocks_for(sequence.num_tokens + wanted) - len(sequence.block_table)
        if missing <= 0 or missing + spare > self._pool.num_available:
            return min(wanted, room)
        sequence.block_table += self._pool.allocate(missing)
        return wanted

    def trim(self, sequence: Sequence) -> None:
        """Give back the blocks that only a draft needed."""
        needed = self._pool.blocks_for(sequence.num_tokens)
        surplus = sequence.block_table[needed:]
        if surplus:
            del sequence.block_table[needed:]
            self._pool.release(surplus)

    def free(self, sequence: Sequence) -> None:
        """Give back all blocks; those that are published may be found again."""
        self._pool.release(sequence.take_blocks())

    def _find(self, sequence: Sequence) -> list[int]:
        return self._pool.find(sequence.token_ids[: sequence.num_findable_tokens], sequence.request.cache_salt)

    def _fits(self, sequence: Sequence, found: list[int], spare: int) -> bool:
        missing = self._pool.blocks_for(sequence.num_tokens) - len(found)
        return missing + self._pool.num_idle(found) + spare <= self._pool.num_available

    # --- blocks are shared

    def publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that are full now."""
        size, table = self._pool.block_size, sequence.block_table
        for index in range(sequence.num_published_blocks, sequence.num_computed_tokens // size):
            before = table[index - 1] if index else None
            token_ids = sequence.token_ids[index * size : (index + 1) * size]
            table[index] = self._pool.publish(table[index], before, token_ids, sequence.request.cache_salt)
            sequence.num_published_blocks += 1

    def skip_ahead(self, sequence: Sequence) -> BlockKey | None:
        """Take over blocks that others published since; returns the key of the next to compute, if it has one."""
        while (key := self._next_key(sequence)) and (block := self._pool.lookup(key)) is not None:
            index = sequence.num_published_blocks
            self._pool.hold([block])
            self._pool.release([sequence.block_table[index]])
            sequence.block_table[index] = block
            self._count_hits(sequence, 1)
        return key

    def _next_key(self, sequence: Sequence) -> BlockKey | None:
        """The prefix-cache key of the next block; None inside a block, and where it has to be computed."""
        start, size = sequence.num_computed_tokens, self._pool.block_size
        if start % size or start + size >= sequence.num_findable_tokens:
            return None
        before = sequence.block_table[start // size - 1] if start else None
        return self._pool.key(before, sequence.token_ids[start : start + size], sequence.request.cache_salt)

    def _count_hits(self, sequence: Sequence, num_blocks: int) -> None:
        num_tokens = num_blocks * self._pool.block_size
        sequence.num_computed_tokens += num_tokens
        sequence.num_published_blocks += num_blocks
        sequence.count_hit(num_tokens)
        self.prefix.num_hits += num_tokens

    def check(self, running: Iterable[Sequence]) -> None:
        """Assert that the pool's accounts close, and that exactly the full blocks are published."""
        sequences = [*running]
        self._pool.check([sequence.block_table for sequence in sequences])
        for sequence in sequences:
            full = sequence.num_computed_tokens // self._pool.block_size
            assert sequence.num_published_blocks == full, "a full block is not published, or one that is not full"

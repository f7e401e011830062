"""The pool of KV blocks: who holds which, which contents may be found again, and what goes first when room is needed.

Owns every block's reference count, the prefix cache and the order of eviction; it knows block ids and token ids, never
sequences or tensors. A block is *free* (holds nothing worth keeping), *cached* (nobody holds it, but its contents can
be found) or *in use* (somebody holds it, whether it can be found or not). Always: free + cached + in use = total.

The prefix cache is a hash chain. The contents of a full block are keyed by (contents before it, its tokens), where
"contents before it" is a number given once, when the block before was published, and never given again. Dictionaries
compare keys with ==, so two prompts whose hashes collide never share a block, and the children of an evicted block
cannot be reached through another block that took its place. What is computed under a salt is found under the same salt
alone: the salt stands in for the contents before the first block.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

_ROOT = 0  # the contents before the first block, where there is no salt

BlockKey = tuple[int | str, tuple[int, ...]]  # (contents before the block, or a salt; the block's tokens)


class BlockPool:
    """Hands out blocks of `block_size` tokens, counts who holds them, and finds them again by their tokens."""

    def __init__(self, num_blocks: int, block_size: int, *, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self._ref_counts = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))  # a stack: block 0 goes first
        self._evictable: OrderedDict[int, None] = OrderedDict()  # cached and unheld, least recently used first
        self._keys: dict[int, BlockKey] = {}  # of published blocks
        self._contents: dict[int, int] = {}  # the number of a published block's contents
        self._published: dict[BlockKey, int] = {}  # where contents are
        self._next_contents = _ROOT + 1

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._evictable)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out."""
        return len(self._free) + len(self._evictable)

    @property
    def num_in_use(self) -> int:
        return self.num_blocks - self.num_available

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks hold that many tokens."""
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int]:
        """Take blocks nobody holds, each with one reference: free ones first, then the least recently used cached."""
        assert count <= self.num_available, f"{count} blocks wanted, {self.num_available} available"
        blocks = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block in blocks:
            self._ref_counts[block] = 1
        return blocks

    def key(self, before: int | None, token_ids: Sequence[int], salt: str = "") -> BlockKey | None:
        """What a full block of these tokens, after the published block `before`, is found by; None: by nothing.

        `salt` counts where there is no block before.
        """
        contents_before: int | str | None = (salt or _ROOT) if before is None else self._contents.get(before)
        if not self.prefix_caching or contents_before is None:
            return None
        return contents_before, tuple(token_ids)

    def lookup(self, key: BlockKey) -> int | None:
        """The published block of that key. Takes no reference."""
        return self._published.get(key)

    def find(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        """The longest run of blocks, published under `salt`, that holds the start of `token_ids`. Takes no references.

        It never covers all of `token_ids`: the last token must be computed, for only computing gives logits.
        """
        blocks: list[int] = []
        for start in range(0, len(token_ids) - self.block_size, self.block_size):
            key = self.key(blocks[-1] if blocks else None, token_ids[start : start + self.block_size], salt)
            block = self.lookup(key) if key else None
            if block is None:
                break
            blocks.append(block)
        return blocks

    def num_idle(self, blocks: Sequence[int]) -> int:
        """How many of `blocks` nobody holds, so that holding them leaves fewer available."""
        return sum(self._ref_counts[block] == 0 for block in blocks)

    def hold(self, blocks: Sequence[int]) -> None:
        """Add one reference to each; they were found, so they are in use or cached."""
        for block in blocks:
            self._ref_counts[block] += 1
            self._evictable.pop(block, None)

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference of each. The last of the list is evicted first, so that a chain loses its end first."""
        for block in reversed(blocks):
            assert self._ref_counts[block] > 0, f"block {block} released more often than held"
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                self._shelve(block)

    def publish(self, block: int, before: int | None, token_ids: Sequence[int], salt: str = "") -> int:
        """Make a full, computed block findable after the block `before`; returns the block to hold from now on.

        That is another one where the same contents were published already: then this one's reference moves there.
        """
        assert len(token_ids) == self.block_size, "only full blocks can be found"
        assert self._ref_counts[block] > 0, f"block {block} is published by nobody"
        key = self.key(before, token_ids, salt)
        if key is None:
            return block
        twin = self.lookup(key)
        if twin is None:
            self._remember(block, key)
        elif twin != block:
            self.hold([twin])
            self.release([block])
            return twin
        return block

    def check(self, block_tables: Iterable[Sequence[int]]) -> None:
        """Assert that the accounts close, given every block table there is."""
        holders = Counter(block for table in block_tables for block in table)
        for block, count in enumerate(self._ref_counts):
            assert count == holders[block], f"block {block} has {count} references and {holders[block]} holders"
        held = sum(count > 0 for count in self._ref_counts)
        assert len(self._free) + len(self._evictable) + held == self.num_blocks, "free + cached + in use != total"
        assert set(self._free).isdisjoint(self._evictable), "a block is free and cached"
        assert set(self._free).isdisjoint(self._keys), "a free block can be found"
        assert self._published == {key: block for block, key in self._keys.items()}, "the prefix cache is torn"
        assert self._contents.keys() == self._keys.keys() >= self._evictable.keys(), "a cached block has no contents"

    def _remember(self, block: int, key: BlockKey) -> None:
        self._keys[block] = key
        self._published[key] = block
        self._contents[block] = self._next_contents
        self._next_contents += 1

    def _shelve(self, block: int) -> None:
        if block in self._keys:
            self._evictable[block] = None
        else:
            self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._evictable.popitem(last=False)
        del self._published[self._keys.pop(block)]
        del self._contents[block]
        return block

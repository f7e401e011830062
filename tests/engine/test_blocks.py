"""The block pool: accounts close under any order of calls, and the cache finds exactly what was published."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from antiphon.engine.worker.blocks import BlockPool

SIZE = 2


def filled(pool: BlockPool, token_ids: list[int], salt: str = "") -> list[int]:
    """Allocate and publish blocks as a sequence that computes `token_ids` would."""
    table = pool.allocate(pool.blocks_for(len(token_ids)))
    for index in range(len(token_ids) // SIZE):
        before = table[index - 1] if index else None
        table[index] = pool.publish(table[index], before, token_ids[index * SIZE : (index + 1) * SIZE], salt)
    return table


def test_a_hit_never_covers_the_whole_prompt():
    pool = BlockPool(8, SIZE)
    table = filled(pool, [1, 2, 3, 4])
    assert pool.find([1, 2, 3, 4]) == table[:1]
    assert pool.find([1, 2, 3, 4, 5]) == table
    assert pool.find([1, 2]) == []


def test_the_same_tokens_after_another_prefix_are_other_contents():
    pool = BlockPool(8, SIZE)
    table = filled(pool, [1, 2, 3, 4])
    assert pool.find([9, 9, 3, 4, 5]) == []
    assert pool.find([3, 4, 3, 4, 5]) == []
    assert pool.find([1, 2, 9, 9, 5]) == table[:1]


def test_colliding_hashes_never_share_a_block():
    pool = BlockPool(8, SIZE)
    assert hash((0, (-1, 5))) == hash((0, (-2, 5)))  # Python's own collision
    filled(pool, [-1, 5])
    assert pool.find([-2, 5, 1]) == []


def test_contents_published_twice_end_up_in_one_block():
    pool = BlockPool(8, SIZE)
    first, second = filled(pool, [1, 2, 3, 4]), filled(pool, [1, 2, 3, 4])
    assert first == second
    assert (pool.num_in_use, pool.num_free) == (2, 6)
    pool.check([first, second])


def test_what_is_computed_under_a_salt_is_found_under_that_salt_alone():
    pool = BlockPool(9, SIZE)
    tokens = [1, 2, 3, 4, 5]
    tables = {salt: filled(pool, tokens, salt) for salt in ("", "a", "b")}
    for salt, table in tables.items():
        assert pool.find(tokens, salt) == table[:2]
    assert pool.find(tokens, "c") == []
    assert pool.num_in_use == 9  # nothing is shared
    pool.check(tables.values())


def test_the_least_recently_used_chain_loses_its_end_first():
    pool = BlockPool(4, SIZE)
    old, new = filled(pool, [1, 2, 3, 4]), filled(pool, [5, 6, 7, 8])
    pool.release(old)
    pool.release(new)
    assert pool.allocate(1) == [old[1]]
    assert pool.find([1, 2, 3, 4, 0]) == old[:1]
    assert pool.allocate(2) == [old[0], new[1]]
    assert pool.find([5, 6, 7, 8, 0]) == new[:1]


def test_children_of_an_evicted_block_are_out_of_reach():
    pool = BlockPool(2, SIZE)
    parent, child = filled(pool, [1, 2, 3, 4])
    pool.release([parent])
    pool.release([child])
    assert pool.allocate(1) == [parent]  # released first, so evicted first, though the child is still cached
    assert pool.publish(parent, None, [7, 8]) == parent
    assert pool.find([7, 8, 3, 4, 5]) == [parent]
    assert pool.find([1, 2, 3, 4, 5]) == []


def test_without_prefix_caching_nothing_is_found():
    pool = BlockPool(4, SIZE, prefix_caching=False)
    table = filled(pool, [1, 2, 3, 4])
    assert pool.find([1, 2, 3, 4, 5]) == []
    pool.release(table)
    assert (pool.num_free, pool.num_cached) == (4, 0)


class PoolMachine(RuleBasedStateMachine):
    """Many holders come and go over a small pool; tokens from a small alphabet, so prefixes are shared often."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12, SIZE)
        self.held: dict[int, list[int]] = {}
        self.computed: dict[
            int, tuple[str, list[int]]
        ] = {}  # block: salt and all tokens up to its end, as last written
        self.next = 0

    @rule(
        target=tables,
        token_ids=st.lists(st.integers(0, 1), min_size=1, max_size=11),
        computed=st.integers(0, 11),
        salt=st.sampled_from(["", "", "a"]),
    )
    def enter(self, token_ids: list[int], computed: int, salt: str):
        hits = self.pool.find(token_ids, salt)
        for index, block in enumerate(hits, start=1):
            assert self.computed[block] == (salt, token_ids[: index * SIZE]), "a hit holds other tokens"
        missing = self.pool.blocks_for(len(token_ids)) - len(hits)
        if missing + self.pool.num_idle(hits) > self.pool.num_available:
            return None
        self.pool.hold(hits)
        table = hits + self.pool.allocate(missing)
        for index in range(len(hits), min(computed, len(token_ids)) // SIZE):
            self.computed[table[index]] = salt, token_ids[: (index + 1) * SIZE]
            before = table[index - 1] if index else None
            full = token_ids[index * SIZE : (index + 1) * SIZE]
            table[index] = self.pool.publish(table[index], before, full, salt)
        self.next += 1
        self.held[self.next] = table
        return self.next

    @rule(holder=consumes(tables))
    def leave(self, holder: int | None):
        if holder is not None:
            self.pool.release(self.held.pop(holder))

    @invariant()
    def accounts_close(self):
        self.pool.check(self.held.values())
        assert self.pool.num_free + self.pool.num_cached + self.pool.num_in_use == self.pool.num_blocks

    def teardown(self):
        for table in self.held.values():
            self.pool.release(table)
        assert self.pool.num_in_use == 0


TestBlockPool = PoolMachine.TestCase

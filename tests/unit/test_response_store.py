"""Kept responses: under two caps, the ones used longest ago go first, turns that several share count once; running ones
stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.api.response_store import _ITEM_OVERHEAD, OVERHEAD, ResponseStore


def test_a_conversation_is_all_its_turns_in_order():
    store = ResponseStore(10, 1 << 20, 1 << 20)
    store.keep("a", b"A", b"[1]", None)
    store.keep("b", b"B", b"[2]", store.get("a"))
    store.keep("other", b"C", b"[3]", store.get("a"))
    kept = store.get("b")
    assert kept is not None
    assert (kept.body, kept.conversation) == (b"B", [b"[1]", b"[2]"])


def test_the_one_used_longest_ago_goes_first():
    store = ResponseStore(2, 1 << 20, 1 << 20)
    store.keep("a", b"", b"", None)
    store.keep("b", b"", b"", None)
    assert store.get("a")
    store.keep("c", b"", b"", None)
    assert store.get("b") is None
    assert store.get("a")
    assert store.get("c")


def test_bytes_are_capped_too_and_what_is_too_large_alone_is_not_kept():
    store = ResponseStore(100, 3 * OVERHEAD, 1 << 20)
    store.keep("a", bytes(OVERHEAD // 2), b"", None)
    store.keep("b", bytes(OVERHEAD // 2), b"", None)
    assert len(store) == 2
    store.keep("c", bytes(1), b"", None)
    assert store.get("a") is None
    store.keep("huge", bytes(4 * OVERHEAD), b"", None)
    assert len(store) == 0
    assert store.num_bytes == 0


def test_a_later_turn_outlives_the_response_it_went_on_from():
    store = ResponseStore(10, 1 << 20, 1 << 20)
    store.keep("a", b"", b"[1]", None)
    store.keep("b", b"", b"[2]", store.get("a"))
    assert store.forget("a")
    assert not store.forget("a")
    kept = store.get("b")
    assert kept is not None
    assert kept.conversation == [b"[1]", b"[2]"]
    assert store.forget("b")
    assert store.num_bytes == 0


def test_none_is_kept_where_none_may_be():
    store = ResponseStore(0, 1 << 20, 1 << 20)
    store.keep("a", b"", b"", None)
    assert store.get("a") is None
    assert store.num_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2000)), max_size=60))
def test_the_bytes_counted_are_those_of_all_turns_that_can_be_reached(steps):
    """Any order of keeping behind something, forgetting, and going on from what was let go meanwhile."""
    store, held = ResponseStore(6, 12_000, 1 << 20), {}
    for number, (before, gone, size) in enumerate(steps):
        held[number] = store.get(str(before))
        store.forget(str(gone))
        # `held`: a request may look its conversation up long before its response is kept
        store.keep(str(number), bytes(size), b"", held.get(number - gone))
        turns = set()
        for id in list(store._kept):
            turn = store._kept[id].turn
            while turn is not None and turn not in turns:
                turns.add(turn)
                turn = turn.before
        assert store.num_bytes == sum(turn.num_bytes for turn in turns) <= 12_000
        assert len(store) <= 6


def test_a_conversation_over_its_cap_can_be_read_and_not_continued():
    store = ResponseStore(10, 1 << 20, 5 * _ITEM_OVERHEAD)
    before = None
    for number in range(8):
        store.keep(str(number), b"body", b"[1]", before)
        before = store.get(str(number))
        assert before is not None
        assert before.body == b"body"
        fits = before.conversation_bytes <= store.max_conversation_bytes
        assert fits == (number < 4)
        assert len(before.conversation) == (number + 1 if fits else 1)


def test_a_response_whose_conversation_does_not_fit_can_be_read_and_not_continued():
    store = ResponseStore(10, 4 * OVERHEAD, 1 << 20)
    store.keep("a", bytes(2 * OVERHEAD), bytes(2 * OVERHEAD), None)
    kept = store.get("a")
    assert kept is not None
    assert kept.conversation_bytes > store.max_conversation_bytes
    assert store.num_bytes == 3 * OVERHEAD + len(b"[]")


class Running:
    """What the store knows of a response that runs."""

    def __init__(self, key: str = "") -> None:
        self.key = key


def test_running_responses_take_the_place_of_stored_ones_and_never_of_each_other():
    store = ResponseStore(10, 10 * OVERHEAD, 1 << 20)
    store.keep("old", b"", b"", None)
    assert store.reserve("a", 6 * OVERHEAD)
    assert store.get("old")
    assert not store.reserve("b", 5 * OVERHEAD)
    assert store.get("old"), "a refusal removes nothing"
    assert store.reserve("a", 10 * OVERHEAD)
    assert store.get("old") is None
    assert not store.reserve("a", 11 * OVERHEAD)
    assert store.num_bytes == 10 * OVERHEAD
    store.run("a", Running())
    store.keep("a", b"", b"", None)
    assert store.running("a") is None
    assert store.get("a")
    assert store.num_bytes == OVERHEAD


def test_a_key_finds_its_own_responses_alone():
    store = ResponseStore(10, 1 << 20, 1 << 20)
    store.keep("a", b"", b"", None, key="ann")
    assert store.reserve("b", 1)
    store.run("b", Running("ann"))
    assert store.get("a", "ann")
    assert store.running("b", "ann")
    for key in ("", "bob"):
        assert store.get("a", key) is None
        assert store.running("b", key) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5000), st.booleans()), max_size=60))
def test_reserved_bytes_are_counted_and_never_above_the_cap(steps):
    store, reserved = ResponseStore(6, 12_000, 1 << 20), {}
    for number, (id, size, ends) in enumerate(steps):
        if ends:
            store.release(str(id))
            reserved.pop(id, None)
        elif store.reserve(str(id), size):
            reserved[id] = size
        store.keep(f"kept {number}", bytes(size), b"", None)
        stored = sum(kept.turn.num_bytes for kept in store._kept.values())
        assert store.num_bytes == stored + sum(reserved.values()) <= 12_000


def test_lower_limits_remove_what_is_above_them():
    store = ResponseStore(3, 1 << 20, 1 << 20)
    for name in "abc":
        store.keep(name, b"body", b"[]", None)
    store.set_limits(2, 1 << 20, 1 << 20)
    assert [store.get(name) is not None for name in "abc"] == [False, True, True]
    store.set_limits(2, 1, 1 << 20)
    assert (len(store), store.num_bytes) == (0, 0)

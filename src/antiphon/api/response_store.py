"""Stored responses, so that the next request can continue from one of them by its id.

The number of responses and their bytes are limited, and the least recently used ones are removed first. Each
conversation has its own limit in bytes, so that a short request never causes long work. Turns of a conversation share
the earlier turns: a turn is kept as long as there is a response after it. This module does not know what the bytes
contain.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_OVERHEAD = 1024  # approximate bytes of Python's objects for one response
_ITEM_OVERHEAD = 256  # bytes of text that cost as much as reading one turn, in addition to its items


@dataclass(slots=True, eq=False)
class Turn:
    """The items of one request and its response, after earlier turns."""

    items: bytes
    num_bytes: int
    before: Turn | None
    conversation_bytes: int  # of the items of this turn and of all before it
    holders: int = 0  # the number of later turns, plus the response itself while it is stored


@dataclass(frozen=True, slots=True)
class Kept:
    """One stored response."""

    body: bytes  # as it was sent
    turn: Turn

    @property
    def conversation_bytes(self) -> int:
        """The approximate length of the conversation."""
        return self.turn.conversation_bytes

    @property
    def conversation(self) -> list[bytes]:
        """The items of every turn up to and including this one."""
        turns: list[bytes] = []
        turn: Turn | None = self.turn
        while turn is not None:
            turns.append(turn.items)
            turn = turn.before
        return turns[::-1]


class ResponseStore:
    """Stored responses by id."""

    def __init__(self, max_responses: int, max_bytes: int, max_conversation_bytes: int) -> None:
        self.max_responses = max_responses
        self.max_bytes = max_bytes
        self.max_conversation_bytes = max_conversation_bytes
        self.num_bytes = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, id: str, body: bytes, items: bytes, before: Kept | None) -> None:
        """Store a response and its turn's `items`, after the conversation `before`.

        If the conversation is over its limit, only the response is stored: it can be returned, but not continued.
        """
        earlier = before.turn if before else None
        length = len(items) + _ITEM_OVERHEAD + (earlier.conversation_bytes if earlier else 0)
        if length > self.max_conversation_bytes:
            items, earlier = b"", None
        turn = Turn(items, len(items) + len(body) + _OVERHEAD, earlier, length)
        self._kept[id] = Kept(body, turn)
        self._hold(turn)
        while self._kept and (len(self._kept) > self.max_responses or self.num_bytes > self.max_bytes):
            self._release(self._kept.popitem(last=False)[1].turn)

    def get(self, id: str) -> Kept | None:
        """The response with that id, if it is still stored; counts as a use."""
        kept = self._kept.get(id)
        if kept is not None:
            self._kept.move_to_end(id)
        return kept

    def forget(self, id: str) -> bool:
        """Delete a response; return whether it existed. Later turns keep what they need of it."""
        kept = self._kept.pop(id, None)
        if kept is not None:
            self._release(kept.turn)
        return kept is not None

    def _hold(self, turn: Turn) -> None:
        """Count a turn, and count again earlier turns that were released while its response was generated."""
        held: Turn | None = turn
        while held is not None:
            held.holders += 1
            if held.holders > 1:
                return
            self.num_bytes += held.num_bytes
            held = held.before

    def _release(self, turn: Turn) -> None:
        released: Turn | None = turn
        while released is not None:
            released.holders -= 1
            if released.holders:
                return
            self.num_bytes -= released.num_bytes
            released = released.before

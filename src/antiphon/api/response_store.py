"""Responses that were kept, so that the next request can go on from one of them by its id.

Owns the memory of conversations. It promises that what it keeps stays under a number of responses and of bytes, and
that the ones used longest ago go first. Turns of one conversation share what came before them: a turn lives as long as
a response that leads to it. It must not know what is in the bytes it keeps.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_OVERHEAD = 1024  # bytes that Python's objects for one response take, about


@dataclass(slots=True, eq=False)
class Turn:
    """What one request and its response brought, behind earlier turns."""

    items: bytes
    num_bytes: int
    before: Turn | None
    holders: int = 0  # later turns, and the response itself while it can be asked for


@dataclass(frozen=True, slots=True)
class Kept:
    """One response that can be asked for."""

    body: bytes  # as it was sent
    turn: Turn

    @property
    def conversation(self) -> list[bytes]:
        """The items of every turn up to and with this one."""
        turns: list[bytes] = []
        turn: Turn | None = self.turn
        while turn is not None:
            turns.append(turn.items)
            turn = turn.before
        return turns[::-1]


class ResponseStore:
    """Kept responses by id."""

    def __init__(self, max_responses: int, max_bytes: int) -> None:
        self.max_responses = max_responses
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, id: str, body: bytes, items: bytes, before: Kept | None) -> None:
        """Keep a response and its turn's `items`, behind the conversation `before`."""
        turn = Turn(items, len(items) + len(body) + _OVERHEAD, before.turn if before else None)
        self._kept[id] = Kept(body, turn)
        self._hold(turn)
        while self._kept and (len(self._kept) > self.max_responses or self.num_bytes > self.max_bytes):
            self._release(self._kept.popitem(last=False)[1].turn)

    def get(self, id: str) -> Kept | None:
        """The response with that id, if it is still here; counts as a use."""
        kept = self._kept.get(id)
        if kept is not None:
            self._kept.move_to_end(id)
        return kept

    def forget(self, id: str) -> bool:
        """Whether there was a response with that id. Later turns keep what they need of it."""
        kept = self._kept.pop(id, None)
        if kept is not None:
            self._release(kept.turn)
        return kept is not None

    def _hold(self, turn: Turn) -> None:
        """Count a turn, and again those before it that were let go while its response was being made."""
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

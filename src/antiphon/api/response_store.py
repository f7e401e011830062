"""Stored responses, so that a later request can read or continue one of them by its id.

The number of responses and their bytes are limited, and the least recently used ones are removed first. Responses that
are still generated in the background are never removed: their bytes count too, and a new one is refused if there is no
room. Each conversation has its own limit in bytes, so that a short request never causes long work. Turns of a
conversation share the earlier turns: a turn is kept as long as there is a response after it. A response belongs to the
API key that created it; other keys cannot find it. This module does not know what the bytes contain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

OVERHEAD = 1024  # approximate bytes of Python's objects for one response
_ITEM_OVERHEAD = 256  # bytes of text that cost as much as reading one turn, in addition to its items


class EventHistory(Protocol):
    """What is needed to send a response's events again, besides the response itself."""

    @property
    def num_bytes(self) -> int:
        """The bytes of memory that it takes."""
        ...

    def replay(self, body: bytes, first: int) -> Iterator[bytes]:
        """The events from number `first` on, as they were sent, in chunks; `body` is the complete response."""
        ...


class RunningResponse(Protocol):
    """A response that is being generated in the background."""

    @property
    def key(self) -> str:
        """The name of the API key that created it."""
        ...

    @property
    def conversation(self) -> list[bytes]:
        """The items of every earlier turn, and those of the request."""
        ...

    def snapshot(self) -> bytes:
        """The response so far, as JSON."""
        ...

    def follow(self, first: int) -> AsyncIterator[bytes]:
        """The events from number `first` on: those of the past, then the others as they are generated."""
        ...

    def cancel(self) -> None:
        """End it now."""
        ...


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
    key: str = ""  # the name of the API key that created it
    history: EventHistory | None = None  # of a background response
    asked: bytes | None = None  # the items of its request, if the answer continued the last of them

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
    """Stored responses by id, and those that are being generated in the background."""

    def __init__(self, max_responses: int, max_bytes: int, max_conversation_bytes: int) -> None:
        self.max_responses = max_responses
        self.max_bytes = max_bytes
        self.max_conversation_bytes = max_conversation_bytes
        self.num_bytes = 0  # of stored and of running responses
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # the least recently used first
        self._running: dict[str, RunningResponse] = {}
        self._reserved: dict[str, int] = {}  # bytes of the running ones, and of those that are about to run
        self._reserved_bytes = 0  # their sum

    def __len__(self) -> int:
        return len(self._kept)

    def set_limits(self, max_responses: int, max_bytes: int, max_conversation_bytes: int) -> None:
        """Change the limits; stored responses above them are removed."""
        self.max_responses, self.max_bytes = max_responses, max_bytes
        self.max_conversation_bytes = max_conversation_bytes
        self._remove_oldest()

    # --- complete responses

    def keep(
        self,
        id: str,
        body: bytes,
        items: bytes,
        before: Kept | None,
        *,
        key: str = "",
        history: EventHistory | None = None,
        asked: bytes | None = None,
    ) -> None:
        """Store a response and its turn's `items`, after the conversation `before`. It does not run any more.

        `asked` are the items of the request, if the items of the turn do not begin with them.
        If the conversation is over its limit, or does not fit into the memory, only the response is stored: it can be
        returned, but not continued, and its events are gone.
        """
        self.release(id)
        earlier = before.turn if before else None
        length = len(items) + _ITEM_OVERHEAD + (earlier.conversation_bytes if earlier else 0)
        if length > self.max_conversation_bytes:
            items, earlier, asked = b"[]", None, None
        num_bytes = len(items) + len(body) + OVERHEAD + (history.num_bytes if history else 0) + len(asked or b"")
        if num_bytes > self.max_bytes:  # as one has that was ended because of its size
            items, earlier, asked, history = b"[]", None, None, None
            num_bytes = len(items) + len(body) + OVERHEAD
            length = max(length, self.max_conversation_bytes + 1)
        turn = Turn(items, num_bytes, earlier, length)
        self._kept[id] = Kept(body, turn, key, history, asked)
        self._hold(turn)
        self._remove_oldest()

    def get(self, id: str, key: str = "") -> Kept | None:
        """The complete response with that id, if it is still stored and belongs to `key`; counts as a use."""
        kept = self._kept.get(id)
        if kept is None or kept.key != key:
            return None
        self._kept.move_to_end(id)
        return kept

    def forget(self, id: str) -> bool:
        """Delete a complete response; return whether it existed. Later turns keep what they need of it."""
        kept = self._kept.pop(id, None)
        if kept is not None:
            self._release(kept.turn)
        return kept is not None

    # --- running responses

    def reserve(self, id: str, num_bytes: int) -> bool:
        """Set how much memory a running response needs; return whether there is room.

        Stored responses are removed to make room, other running ones never. Without room nothing changes.
        """
        more = num_bytes - self._reserved.get(id, 0)
        if self._reserved_bytes + more > self.max_bytes:
            return False
        self._reserved[id] = num_bytes
        self._reserved_bytes += more
        self.num_bytes += more
        self._remove_oldest()
        return True

    def run(self, id: str, response: RunningResponse) -> None:
        """Add a response that has begun to run; its memory is reserved."""
        assert id in self._reserved, "a running response has its memory reserved"
        self._running[id] = response

    def running(self, id: str, key: str = "") -> RunningResponse | None:
        """The running response with that id, if it belongs to `key`."""
        response = self._running.get(id)
        return response if response is not None and response.key == key else None

    def release(self, id: str) -> None:
        """Take back what `reserve` and `run` did. Unknown ids are ignored."""
        self._running.pop(id, None)
        num_bytes = self._reserved.pop(id, 0)
        self._reserved_bytes -= num_bytes
        self.num_bytes -= num_bytes

    def _remove_oldest(self) -> None:
        while self._kept and (len(self._kept) > self.max_responses or self.num_bytes > self.max_bytes):
            self._release(self._kept.popitem(last=False)[1].turn)

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

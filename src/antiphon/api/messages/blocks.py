"""The content of a message while it is generated: turns pieces of an answer into blocks and their events.

Owns the open block and the order of events. Blocks follow each other and never interleave, and a whole message has the
same blocks as a streamed one. This module does not know the request.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from antiphon.api.messages.shapes import (
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputDelta,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
)
from antiphon.api.pieces import Piece, ToolCallDelta


class Content:
    """The blocks of one message."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._grown: list[str] = []  # text of the last block, which is open
        self._call_index = -1  # of the last call, as numbered in the pieces

    def push(self, piece: Piece) -> Iterator[Event]:
        """The events for `piece`."""
        if piece.reasoning:
            if not isinstance(self._open, Thinking):
                yield from self._begin(Thinking())
            yield self._grow(piece.reasoning, ThinkingDelta(piece.reasoning))
        if piece.content:
            if not isinstance(self._open, Text):
                yield from self._begin(Text())
            yield self._grow(piece.content, TextDelta(piece.content))
        for delta in piece.tool_calls:
            yield from self._call(delta)

    def close(self) -> Iterator[Event]:
        """The last events. A message always has at least one block of text or a call."""
        if not any(isinstance(block, Text | ToolUse) for block in self.blocks):
            yield from self._begin(Text())
        yield from self._end()

    @property
    def _open(self) -> Block | None:
        return self.blocks[-1] if self.blocks else None

    def _call(self, delta: ToolCallDelta) -> Iterator[Event]:
        if not isinstance(self._open, ToolUse) or delta.index != self._call_index:
            assert delta.id is not None, "the first delta of a call names it"
            assert delta.name is not None
            self._call_index = delta.index
            yield from self._begin(ToolUse(delta.id, delta.name, {}))
        if delta.arguments:
            yield self._grow(delta.arguments, InputDelta(delta.arguments))

    def _begin(self, block: Block) -> Iterator[Event]:
        yield from self._end()
        self.blocks.append(block)
        yield BlockStart(len(self.blocks) - 1, block)

    def _grow(self, text: str, delta: TextDelta | ThinkingDelta | InputDelta) -> BlockDelta:
        self._grown.append(text)
        return BlockDelta(len(self.blocks) - 1, delta)

    def _end(self) -> Iterator[Event]:
        if self._open is None:
            return
        _fill(self._open, "".join(self._grown))
        self._grown = []
        yield BlockStop(len(self.blocks) - 1)


def _fill(block: Block, grown: str) -> None:
    if isinstance(block, Text):
        block.text = grown
    elif isinstance(block, Thinking):
        block.thinking = grown
    else:
        block.input = _input(grown)


def _input(arguments: str) -> dict[str, object]:
    """A call's arguments. If the answer was cut off and they are not valid JSON, they are put under `_incomplete`."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, object])
    except msgspec.DecodeError:
        return {"_incomplete": arguments}

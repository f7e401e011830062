"""The output of a response while it is generated: turns pieces of an answer into items and their events.

Owns the open item and the order of events. Items follow each other and never interleave; each is added, filled and
closed. A whole answer has the same items as a streamed one. Events hold no object that changes later. This module does
not know sequence numbers, JSON or the request.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET

from antiphon.api.pieces import Piece, ToolCallDelta
from antiphon.api.responses.shapes import (
    ArgumentsDelta,
    ArgumentsDone,
    Event,
    FunctionCall,
    Item,
    ItemAdded,
    ItemDone,
    Message,
    OutputText,
    PartAdded,
    PartDone,
    Reasoning,
    ReasoningDelta,
    ReasoningDone,
    ReasoningText,
    Status,
    TextDelta,
    TextDone,
)
from antiphon.api.shapes import TokenLogprob


def item_id(kind: str) -> str:
    """A random id in OpenAI's format."""
    return f"{kind}_{secrets.token_hex(16)}"


class Output:
    """The items of one response."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._open: _Text | _Thought | _Call | None = None
        self._call_index = -1  # of the last call, as numbered in the pieces
        # Log-probabilities of tokens before the first letter of their text, such as the line break after a tag.
        self._early: list[TokenLogprob] = []
        self._early_in_thought: list[TokenLogprob] = []

    def push(
        self, piece: Piece, logprobs: list[TokenLogprob], thought_logprobs: Sequence[TokenLogprob] = ()
    ) -> Iterator[Event]:
        """The events for `piece`; `logprobs` are those of its tokens in the answer, and in the thought."""
        self._early_in_thought += thought_logprobs
        if piece.reasoning or (self._early_in_thought and isinstance(self._open, _Thought)):
            early, self._early_in_thought = self._early_in_thought, []
            yield from self._thought(piece.reasoning, early)
        self._early += logprobs
        if piece.content or (self._early and isinstance(self._open, _Text)):
            early, self._early = self._early, []
            yield from self._text(piece.content, early)
        for delta in piece.tool_calls:
            yield from self._call(delta)

    def close(self, status: Status) -> Iterator[Event]:
        """The last events. The open item gets the response's status. There is always at least a message or a call."""
        if not any(isinstance(item, Message | FunctionCall) for item in self.items):
            yield from self._text("", [])
        yield from self._end(status)

    def stop(self) -> Iterator[Event]:
        """The last events of a response that ended early. The open item is incomplete."""
        yield from self._end("incomplete")

    def so_far(self) -> list[Item]:
        """The items with the text that they have so far."""
        if self._open is None:
            return [*self.items]
        return [*self.items[:-1], self._open.so_far()]

    def _thought(self, text: str, logprobs: list[TokenLogprob]) -> Iterator[Event]:
        if not isinstance(self._open, _Thought):
            yield from self._begin(_Thought(len(self.items)))
        assert isinstance(self._open, _Thought)
        yield from self._open.add(text, logprobs)

    def _text(self, text: str, logprobs: list[TokenLogprob]) -> Iterator[Event]:
        if not isinstance(self._open, _Text):
            yield from self._begin(_Text(len(self.items)))
        assert isinstance(self._open, _Text)
        yield from self._open.add(text, logprobs)

    def _call(self, delta: ToolCallDelta) -> Iterator[Event]:
        if not isinstance(self._open, _Call) or delta.index != self._call_index:
            self._call_index = delta.index
            yield from self._begin(_Call(len(self.items), delta))
        assert isinstance(self._open, _Call)
        yield from self._open.add(delta.arguments)
        if delta.is_last:
            yield from self._end("completed")

    def _begin(self, item: _Text | _Thought | _Call) -> Iterator[Event]:
        yield from self._end("completed")
        self._open = item
        self.items.append(item.item)
        yield from item.begin()

    def _end(self, status: Status) -> Iterator[Event]:
        if self._open is not None:
            yield from self._open.end(status)
        self._open = None


class _Text:
    """The answer's text while it is generated."""

    def __init__(self, index: int) -> None:
        self.item = Message(item_id("msg"))
        self._index = index
        self._text = bytearray()  # UTF-8; a list of parts would take ten times the memory
        self._logprobs: list[TokenLogprob] = []

    def begin(self) -> Iterator[Event]:
        yield ItemAdded(output_index=self._index, item=copy.copy(self.item))
        yield PartAdded(item_id=self.item.id, output_index=self._index, part=OutputText())

    def add(self, text: str, logprobs: list[TokenLogprob]) -> Iterator[Event]:
        self._text += text.encode()
        self._logprobs += logprobs
        if text or logprobs:
            yield TextDelta(item_id=self.item.id, output_index=self._index, delta=text, logprobs=logprobs)

    def so_far(self) -> Message:
        return msgspec.structs.replace(self.item, content=[OutputText(self._text.decode(), logprobs=self._logprobs)])

    def end(self, status: Status) -> Iterator[Event]:
        self.item.content, self.item.status = self.so_far().content, status
        yield from ended(self._index, self.item)


class _Thought:
    """The thought while it is generated."""

    def __init__(self, index: int) -> None:
        self.item = Reasoning(item_id("rs"))
        self._index = index
        self._text = bytearray()
        self._logprobs: list[TokenLogprob] = []

    def begin(self) -> Iterator[Event]:
        yield ItemAdded(output_index=self._index, item=copy.copy(self.item))
        yield PartAdded(item_id=self.item.id, output_index=self._index, part=ReasoningText())

    def add(self, text: str, logprobs: list[TokenLogprob]) -> Iterator[Event]:
        self._text += text.encode()
        self._logprobs += logprobs
        yield ReasoningDelta(item_id=self.item.id, output_index=self._index, delta=text, logprobs=logprobs or UNSET)

    def so_far(self) -> Reasoning:
        part = ReasoningText(self._text.decode(), self._logprobs or UNSET)
        return msgspec.structs.replace(self.item, content=[part])

    def end(self, status: Status) -> Iterator[Event]:
        self.item.content, self.item.status = self.so_far().content, status
        yield from ended(self._index, self.item)


class _Call:
    """A function call while its arguments are generated."""

    def __init__(self, index: int, first: ToolCallDelta) -> None:
        assert first.id is not None, "the first delta of a call names it"
        assert first.name is not None
        self.item = FunctionCall(item_id("fc"), call_id=first.id, name=first.name)
        self._index = index
        self._arguments = bytearray()

    def begin(self) -> Iterator[Event]:
        yield ItemAdded(output_index=self._index, item=copy.copy(self.item))

    def add(self, arguments: str) -> Iterator[Event]:
        self._arguments += arguments.encode()
        if arguments:
            yield ArgumentsDelta(item_id=self.item.id, output_index=self._index, delta=arguments)

    def so_far(self) -> FunctionCall:
        return msgspec.structs.replace(self.item, arguments=self._arguments.decode())

    def end(self, status: Status) -> Iterator[Event]:
        self.item.arguments, self.item.status = self.so_far().arguments, status
        yield from ended(self._index, self.item)


def ended(index: int, item: Item) -> Iterator[Event]:
    """The last events of a complete item, which is number `index` of its response."""
    if isinstance(item, Message):
        for text in item.content:
            yield TextDone(item_id=item.id, output_index=index, text=text.text, logprobs=text.logprobs)
            yield PartDone(item_id=item.id, output_index=index, part=text)
    elif isinstance(item, Reasoning):
        for thought in item.content:
            yield ReasoningDone(item_id=item.id, output_index=index, text=thought.text)
            yield PartDone(item_id=item.id, output_index=index, part=thought)
    else:
        yield ArgumentsDone(item_id=item.id, output_index=index, name=item.name, arguments=item.arguments)
    yield ItemDone(output_index=index, item=item)


def replayed(index: int, item: Item) -> Iterator[Event]:
    """The events for a complete item."""
    if isinstance(item, Message):
        text = _Text(index)
        text.item.id = item.id
        yield from text.begin()
        for part in item.content:
            yield from text.add(part.text, part.logprobs)
        yield from text.end(item.status)
    elif isinstance(item, Reasoning):
        thought = _Thought(index)
        thought.item.id = item.id
        yield from thought.begin()
        for thought_part in item.content:
            yield from thought.add(thought_part.text, thought_part.logprobs or [])
        yield from thought.end(item.status)
    else:
        call = _Call(index, ToolCallDelta(index, item.call_id, item.name))
        call.item.id = item.id
        yield from call.begin()
        yield from call.add(item.arguments)
        yield from call.end(item.status)

"""The events of a background response, kept so that any number of readers get the same bytes at any time.

Events are written again whenever they are read. Only what the response itself does not contain is kept: how its text
was divided into deltas, some 10 bytes for each besides their text. Events that repeat the text or the response are
derived from the response. This module does not know who reads, or where responses are stored.

A log is a list of entries. An entry is an event that is kept as it is, a run of deltas of one item, or a derived
event. The number of an event is its position.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from antiphon.api.events import named_event
from antiphon.api.responses import shapes
from antiphon.api.responses.items import ended
from antiphon.api.shapes import TokenLogprob, encoder

_ENTRY_BYTES = 512  # approximate bytes of one entry that is not a delta
_EVENTS_AT_ONCE = 256  # encoded before other tasks get a turn, about a millisecond's worth

_ENDINGS = (shapes.TextDone, shapes.ReasoningDone, shapes.ArgumentsDone, shapes.PartDone, shapes.ItemDone)

_decode_response = msgspec.json.Decoder(shapes.ResponseBody).decode


class _Extended(msgspec.Struct, array_like=True):
    """A delta that is more than text."""

    text: str
    logprobs: list[TokenLogprob] | None
    num_tokens: int  # -1: not counted


_decode_delta = msgspec.json.Decoder(str | _Extended).decode


def begun(response: shapes.ResponseBody, status: shapes.ResponseStatus) -> shapes.ResponseBody:
    """The response as it was at its beginning."""
    return msgspec.structs.replace(
        response,
        status=status,
        output=[],
        usage=None,
        completed_at=None,
        incomplete_details=None,
        error=None,
        timings=UNSET,
        thought_closed=UNSET,
    )


def framed(number: int, event: shapes.Event) -> bytes:
    """One event as it is sent."""
    event.sequence_number = number
    return named_event(str(type(event).__struct_config__.tag), encoder.encode(event))


@dataclass(frozen=True, slots=True)
class _OfResponse:
    """An event that contains the response at its beginning or end."""

    kind: type[shapes.ResponseEvent]

    def event(self, response: shapes.ResponseBody) -> shapes.Event:
        if self.kind in (shapes.Created, shapes.Queued):
            return self.kind(response=begun(response, "queued"))
        if self.kind is shapes.InProgress:
            return self.kind(response=begun(response, "in_progress"))
        return self.kind(response=response)


@dataclass(frozen=True, slots=True)
class _OfItem:
    """An event that contains all of an item."""

    kind: type[shapes.Event]
    output_index: int

    def event(self, response: shapes.ResponseBody) -> shapes.Event:
        events = ended(self.output_index, response.output[self.output_index])
        return next(event for event in events if type(event) is self.kind)


@dataclass(slots=True)
class _Deltas:
    """Consecutive deltas of one item."""

    kind: type[shapes.Delta]
    item_id: str
    output_index: int
    data: bytearray = field(default_factory=bytearray)  # each delta as JSON: its text, or an `_Extended`
    ends: array[int] = field(default_factory=lambda: array("I"))

    def takes(self, event: shapes.Delta) -> bool:
        return type(event) is self.kind and event.item_id == self.item_id

    def add(self, event: shapes.Delta) -> int:
        """Add a delta; return its bytes."""
        logprobs = None if isinstance(event, shapes.ArgumentsDelta) else event.logprobs or None
        num_tokens = -1 if event.num_tokens is UNSET else event.num_tokens
        is_plain = logprobs is None and num_tokens < 0
        data = encoder.encode(event.delta if is_plain else _Extended(event.delta, logprobs, num_tokens))
        self.data += data
        self.ends.append(len(self.data))
        return len(data) + self.ends.itemsize

    def event(self, index: int) -> shapes.Event:
        begin = self.ends[index - 1] if index else 0
        delta = _decode_delta(memoryview(self.data)[begin : self.ends[index]])
        if isinstance(delta, str):
            return self.kind(item_id=self.item_id, output_index=self.output_index, delta=delta)
        event = self.kind(item_id=self.item_id, output_index=self.output_index, delta=delta.text)
        event.num_tokens = UNSET if delta.num_tokens < 0 else delta.num_tokens
        if delta.logprobs is not None and not isinstance(event, shapes.ArgumentsDelta):
            event.logprobs = delta.logprobs
        return event


_Entry = shapes.Event | _OfResponse | _OfItem | _Deltas


class EventLog:
    """All events of one response so far."""

    def __init__(self) -> None:
        self.num_bytes = 0  # approximate
        self._entries: list[_Entry] = []
        self._firsts: list[int] = []  # the number of each entry's first event
        self._length = 0

    def __len__(self) -> int:
        """The number of events, which is also the number of the next one."""
        return self._length

    def append(self, event: shapes.Event) -> None:
        """Add the next event."""
        if isinstance(event, shapes.Delta):
            self._append_delta(event)
        elif isinstance(event, _ENDINGS):
            self._append_entry(_OfItem(type(event), event.output_index))
        elif isinstance(event, shapes.ResponseEvent):
            self._append_entry(_OfResponse(type(event)))
        else:
            self._append_entry(event)
        self._length += 1

    def chunk(self, first: int, response: shapes.ResponseBody) -> tuple[bytes, int]:
        """Some events from number `first` on, as they are sent, and the number of the event after them.

        `response` is the response in its present state.
        """
        last = min(self._length, first + _EVENTS_AT_ONCE)
        return b"".join(framed(number, self._event(number, response)) for number in range(first, last)), last

    def replay(self, body: bytes, first: int) -> Iterator[bytes]:
        """The events from number `first` on, in chunks; `body` is the complete response."""
        response = _decode_response(body)
        while first < self._length:
            chunk, first = self.chunk(first, response)
            yield chunk

    def _event(self, number: int, response: shapes.ResponseBody) -> shapes.Event:
        position = bisect_right(self._firsts, number) - 1
        entry = self._entries[position]
        if isinstance(entry, _Deltas):
            return entry.event(number - self._firsts[position])
        return entry.event(response) if isinstance(entry, _OfResponse | _OfItem) else entry

    def _append_delta(self, event: shapes.Delta) -> None:
        last = self._entries[-1] if self._entries else None
        if not isinstance(last, _Deltas) or not last.takes(event):
            last = _Deltas(type(event), event.item_id, event.output_index)
            self._append_entry(last)
        self.num_bytes += last.add(event)

    def _append_entry(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._firsts.append(self._length)
        self.num_bytes += _ENTRY_BYTES

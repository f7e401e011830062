"""Finds tool calls in an answer while it is being written: pieces of text in, text and whole calls out.

Promises that feeding the text whole or letter by letter gives the same; that each letter is looked at a bounded number
of times; and that nothing is lost: what begins like a call and is none comes out as the text it was. A call comes out
once it is complete, since only then is it certain to be one. Blanks and tags next to calls belong to neither text nor
call.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from antiphon.text.reasoning import overlap
from antiphon.text.tool_shapes import ToolCall, ToolShape


@dataclass(frozen=True, slots=True)
class ToolReading:
    """How the calls in one request's answers are read."""

    shape: ToolShape
    names: Collection[str]  # of the tools that may be called; a call of any other is text
    several: bool = True  # whether calls may follow the first


class Found(NamedTuple):
    """What became certain."""

    content: str = ""
    calls: Sequence[ToolCall] = ()


class ToolCallParser:
    """The search of one stream."""

    def __init__(self, reading: ToolReading) -> None:
        shape = reading.shape
        self._reading = reading
        around = "".join(f"|{re.escape(tag)}" for tag in shape.around)
        self._next = re.compile(rf"(?P<open>{re.escape(shape.open)})|(?P<filler>\s+{around})|[^\s<]+|<")
        self._rest = ""  # what may yet become a tag
        self._filler: list[str] = []  # blanks and tags since the last text or call
        self._body: list[str] | None = None  # of the call that has begun
        self._behind_call = False  # whether a call was the last that came out
        self._said: list[str] = []  # text to hand out with the next answer
        self._calls: list[ToolCall] = []  # and calls
        self.complete = False  # nothing more is wanted: the only call that is allowed is there

    def push(self, text: str) -> Found:
        """The text and the calls that `text` makes certain."""
        self._scan(self._rest + text, is_last=False)
        return self._take()

    def finish(self) -> Found:
        """What was held back, now that nothing follows. A call may do without its closing tag here."""
        self._scan(self._rest, is_last=True)
        if self._body is not None:
            self._end_call(closing="")
        if not self._behind_call:
            self._say("")
        return self._take()

    def _take(self) -> Found:
        found = Found("".join(self._said), self._calls)
        self._said, self._calls = [], []
        return found

    def _scan(self, text: str, *, is_last: bool) -> None:
        position, before = 0, -1
        while before < position < len(text) and not self.complete:
            before = position
            if self._body is not None:
                position = self._read_body(text, position, is_last=is_last)
            else:
                position = self._read_text(text, position, is_last=is_last)
        self._rest = text[position:]

    def _read_body(self, text: str, start: int, *, is_last: bool) -> int:
        """Read the call that is open; returns where it ends, or where a closing tag may have begun."""
        assert self._body is not None
        closing = self._reading.shape.close
        at = text.find(closing, start)
        if at < 0:
            end = len(text) if is_last else max(start, len(text) - overlap(text, closing))
            self._body.append(text[start:end])
            return end
        self._body.append(text[start:at])
        self._end_call(closing)
        return at + len(closing)

    def _end_call(self, closing: str) -> None:
        body, self._body = "".join(self._body or ()), None
        call = self._reading.shape.read(body)
        if call is None or call.name not in self._reading.names:
            self._say(self._reading.shape.open + body + closing)
            return
        self._filler.clear()
        self._behind_call = True
        self.complete = not self._reading.several
        self._calls.append(call)

    def _read_text(self, text: str, start: int, *, is_last: bool) -> int:
        """Read what stands outside calls, up to the next one; returns where that, or a piece of a tag, begins."""
        tags = (self._reading.shape.open, *self._reading.shape.around)
        end = len(text) if is_last else max(start, len(text) - max(overlap(text, tag) for tag in tags))
        while start < end and (match := self._next.match(text, start, end)):
            start = match.end()
            if match["open"]:
                self._body = []
                break
            if match["filler"]:
                self._filler.append(match["filler"])
            else:
                self._say(match.group())
        return start

    def _say(self, text: str) -> None:
        self._said += (*self._filler, text)
        self._filler.clear()
        self._behind_call = False

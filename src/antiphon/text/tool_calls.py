"""Finds tool calls in an answer while it is being written: pieces of text in, text and calls out, in their order.

Feeding the text whole or letter by letter gives the same result, each letter is looked at a bounded number of times,
and nothing is lost: what begins like a call and is none comes out as the text it was. A call comes out once it is
complete, because only then is it certain to be one (calls that a grammar forces are certain from their first letter:
see `forced_calls`). A call ends at its closing tag outside of JSON strings; a string may hold any text, tags included.
Blanks next to calls, and the tags around all of them, belong to neither text nor call.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from antiphon.text.json_scanner import JsonScanner
from antiphon.text.reasoning import overlap
from antiphon.text.tool_shapes import ToolShape

MAX_AROUND = 512  # characters of a call that are not its JSON; the names of tools have up to 64


@dataclass(frozen=True, slots=True)
class ToolReading:
    """How the calls in one request's answers are read."""

    shape: ToolShape
    names: Collection[str]  # of the tools that may be called; a call of any other is text
    several: bool = True  # whether calls may follow the first
    forced: bool = False  # whether a grammar makes the answer nothing but calls: `tool_grammar`
    or_text: bool = False  # whether that grammar allows a text instead


class CallPart(NamedTuple):
    """A piece of a call: the first one has its name, each a part of its arguments."""

    name: str | None  # None: the piece belongs to the call before
    arguments: str  # of the JSON text that they are
    is_last: bool  # the call is complete


Part = str | CallPart


class CallParser(Protocol):
    """The search for calls in one stream."""

    complete: bool  # nothing more is wanted: the last call that is allowed is there

    def push(self, text: str) -> list[Part]:
        """The text and the calls that `text` makes certain."""
        ...

    def finish(self) -> list[Part]:
        """What was held back, now that nothing follows."""
        ...


class ToolCallParser:
    """The search in an answer that may have text and calls. A call may lack its closing tag at the answer's end."""

    def __init__(self, reading: ToolReading) -> None:
        shape = reading.shape
        self._reading = reading
        around = "".join(f"|{re.escape(tag)}" for tag in shape.around)
        self._next = re.compile(rf"(?P<open>{re.escape(shape.open)})|(?P<filler>\s+{around})|[^\s<]+|<")
        self._rest = ""  # what may yet become a tag
        self._filler: list[str] = []  # blanks and tags since the last text or call
        self._body: _Body | None = None  # of the call that has begun
        self._behind_call = False  # whether a call was the last that came out
        self._parts: list[Part] = []  # to hand out with the next answer
        self.complete = False

    def push(self, text: str) -> list[Part]:
        self._scan(self._rest + text, is_last=False)
        return self._take()

    def finish(self) -> list[Part]:
        self._scan(self._rest, is_last=True)
        if not self._behind_call:
            self._say("")
        return self._take()

    def _take(self) -> list[Part]:
        parts, self._parts = self._parts, []
        return parts

    def _scan(self, text: str, *, is_last: bool) -> None:
        position = 0
        while not self.complete:
            if self._body is None:
                position = self._read_text(text, position, is_last=is_last)
            if self._body is None:
                break
            position = self._body.feed(text, position, is_last=is_last)
            if not self._body.is_over:
                break
            body, self._body = self._body, None
            if not self._add_call(body):  # the opening tag was text, and what came behind it is read once more
                self._say(self._reading.shape.open)
                text, position = body.unread(text)
        self._rest = text[position:]

    def _add_call(self, body: _Body) -> bool:
        """Hand out the call that `body` is; returns whether it is one."""
        call = None if body.failed else self._reading.shape.read(body.text)
        if call is None or call.name not in self._reading.names:
            return False
        self._filler.clear()
        self._behind_call = True
        self.complete = not self._reading.several
        self._parts.append(CallPart(call.name, call.arguments, is_last=True))
        return True

    def _read_text(self, text: str, start: int, *, is_last: bool) -> int:
        """Read what is outside calls, up to the next one; returns where that, or a piece of a tag, begins."""
        tags = (self._reading.shape.open, *self._reading.shape.around)
        end = len(text) if is_last else max(start, len(text) - max(overlap(text, tag) for tag in tags))
        while start < end and (match := self._next.match(text, start, end)):
            start = match.end()
            if match["open"]:
                self._body = _Body(self._reading.shape)
                break
            if match["filler"]:
                self._filler.append(match["filler"])
            else:
                self._say(match.group())
        return start

    def _say(self, text: str) -> None:
        said = "".join((*self._filler, text))
        self._filler.clear()
        self._behind_call = False
        if said:
            self._parts.append(said)


class _Body:
    """What follows an opening tag: perhaps a header, a JSON object, perhaps a fence, and the closing tag.

    Reading it again after it turned out to be no call costs no more than reading it twice: an opening tag inside it
    is inside a string, so where the second reading is in a string the first was not, and of any two only one can pass
    a tag or a backslash. No character is in more than two bodies.
    """

    def __init__(self, shape: ToolShape) -> None:
        self._shape = shape
        self._json = JsonScanner()
        self._before: list[str] = []  # what was read in earlier pieces of text
        self._start = self._end = 0  # the part of it that is in the latest piece
        self._num_around = 0  # characters read before and behind the object
        self._in_json = False
        self.is_over = False
        self.failed = False  # it is no call

    @property
    def text(self) -> str:
        """What is between the tags."""
        return "".join(self._before)

    def feed(self, text: str, start: int, *, is_last: bool) -> int:
        """Read `text` from `start`; returns where reading stopped: behind the closing tag, where a piece of that may
        begin, or where it turned out that this is no call.
        """
        self._start = at = start
        before = -1
        while before < at < len(text) and not self.is_over:
            before = at
            at = self._read_json(text, at) if self._in_json else self._read_around(text, at, is_last)
        if is_last and not self.is_over:
            self._end, self.is_over = at, True
            self.failed = not self._json.done or at < len(text)
        if not self.is_over:
            self._end = at
        if not self.failed:
            self._before.append(text[self._start : self._end])
        return at

    def unread(self, text: str) -> tuple[str, int]:
        """`text`, the latest piece, with all that was read of this body in front, and where that begins."""
        if not self.failed:
            self._before.pop()
        return ("".join(self._before) + text[self._start :], 0) if self._before else (text, self._start)

    def _read_json(self, text: str, at: int) -> int:
        at = self._json.feed(text, at)
        self._in_json = not self._json.done
        if self._json.failed:
            self._fail()
        return at

    def _read_around(self, text: str, at: int, is_last: bool) -> int:
        """Read what is before or behind the object."""
        pattern = self._shape.behind_arguments if self._json.done else self._shape.before_arguments
        if match := pattern.match(text, at):
            self._num_around += match.end() - at
            at = match.end()
        if self._num_around > MAX_AROUND:
            self._fail()
        elif at == len(text):
            pass
        elif text.startswith(self._shape.close, at):
            self._end, self.is_over = at, True
            at += len(self._shape.close)
        elif text[at] == "{" and not self._json.done:
            self._in_json = True
            at = self._read_json(text, at)
        elif is_last or not any(tag.startswith(text[at:]) for tag in (self._shape.close, *self._shape.inside)):
            self._fail()
        return at

    def _fail(self) -> None:
        self.is_over = self.failed = True

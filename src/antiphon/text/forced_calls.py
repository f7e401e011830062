"""Reads an answer that a grammar makes nothing but tool calls: pieces of text in, pieces of calls out.

The answer follows `tool_grammar` to the letter, so a call is certain from its first letter and its arguments come out
as they are written. An answer that was cut off ends with a call whose arguments are a part of theirs. What was written
for the next call before its name was certain says nothing and is left out. Where the grammar allows a text instead of
calls, the answer is text as soon as it does not begin like a call.

An answer ends at a call that repeats an earlier one exactly, and that call is left out: small models that may call
again do so until they are stopped. So a call is held back while it is the beginning of an earlier one.
"""

from __future__ import annotations

import re

from antiphon.text.json_scanner import JsonScanner
from antiphon.text.tool_calls import CallPart, Part, ToolReading


class ForcedCallParser:
    """The search of one stream: a `tool_calls.CallParser`."""

    def __init__(self, reading: ToolReading) -> None:
        self._several = reading.several
        self._shape = reading.shape
        self._may_be_text = reading.or_text
        self._is_text = False
        self._names = {reading.shape.frame(name)[0]: name for name in reading.names}  # by what is before the arguments
        self._begins = re.compile("|".join(map(re.escape, self._names)))
        self._opening = reading.shape.around[0] if reading.shape.around else ""
        self._frame = ""  # what was written since the last call's arguments
        self._call: _Growing | None = None
        self._made: list[tuple[str, str]] = []  # calls that are complete, each a name and arguments
        self.complete = False

    def push(self, text: str) -> list[Part]:
        if self._is_text:
            return [text]
        parts: list[Part] = []
        position = 0
        while position < len(text) and not self.complete:
            if self._call is None:
                position = self._read_frame(text, position)
                if self._may_be_text and self._call is None and not self._begins_like_a_call():
                    self._is_text = True
                    return [self._take_frame()]
            else:
                position = self._read_arguments(self._call, text, position, parts)
        return parts

    def finish(self) -> list[Part]:
        if self._call is not None:
            return [self._call.take()]
        if self._may_be_text and self._frame and self._shape.open not in self._frame:  # too little of a call to be one
            return [self._take_frame()]
        name = self._only_name_left()
        return [] if name is None else [CallPart(name, "", is_last=False)]

    def _read_frame(self, text: str, start: int) -> int:
        """Read up to the arguments of the next call; returns where they begin, if they do."""
        self._frame += text[start:]
        begin = self._begins.search(self._frame)
        if begin is None or (self._may_be_text and self._frame[: begin.start()] != self._opening):
            return len(text)
        name = self._names[begin.group()]
        start = len(text) - (len(self._frame) - begin.end())
        self._frame = ""
        self._may_be_text = False
        self._call = _Growing(name, [arguments for made, arguments in self._made if made == name])
        return start

    def _read_arguments(self, call: _Growing, text: str, start: int, parts: list[Part]) -> int:
        end = call.grow(text, start)
        if call.repeats:
            self.complete, self._call = True, None
        elif call.is_complete:
            parts.append(call.take())
            self._made.append((call.name, call.arguments))
            self._call, self.complete = None, not self._several
        elif not call.may_repeat:
            parts.append(call.take())
        return end

    def _take_frame(self) -> str:
        frame, self._frame = self._frame, ""
        return frame

    def _begins_like_a_call(self) -> bool:
        return any((self._opening + before).startswith(self._frame) for before in self._names)

    def _only_name_left(self) -> str | None:
        """The name of the first call, where it was cut off before its arguments but no other name can come."""
        if self._made or not self._frame or self.complete:
            return None
        names = [name for before, name in self._names.items() if (self._opening + before).startswith(self._frame)]
        return names[0] if len(names) == 1 else None


class _Growing:
    """A call while its arguments grow."""

    def __init__(self, name: str, earlier: list[str]) -> None:
        self.name = name
        self._earlier = earlier  # arguments of earlier calls of this tool that begin like these
        self._json = JsonScanner()
        self._taken: list[str] = []
        self._held: list[str] = []
        self._length = 0
        self._is_named = False

    def grow(self, text: str, start: int) -> int:
        """Read `text` from `start`; returns where the arguments end, or the end of `text`."""
        end = self._json.feed(text, start)
        if self._json.failed:  # no grammar allows it; nothing is lost
            end = len(text)
        new = text[start:end]
        self._earlier = [each for each in self._earlier if each.startswith(new, self._length)]
        self._held.append(new)
        self._length += len(new)
        return end

    @property
    def is_complete(self) -> bool:
        return self._json.done

    @property
    def may_repeat(self) -> bool:
        """Whether an earlier call begins like this one."""
        return bool(self._earlier)

    @property
    def repeats(self) -> bool:
        """Whether this is an earlier call once more."""
        return self._json.done and self.may_repeat

    @property
    def arguments(self) -> str:
        """Those that were taken."""
        return "".join(self._taken)

    def take(self) -> CallPart:
        """What is new."""
        new = "".join(self._held)
        self._held.clear()
        self._taken.append(new)
        name, self._is_named = None if self._is_named else self.name, True
        return CallPart(name, new, is_last=self._json.done)

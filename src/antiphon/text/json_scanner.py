"""Follows a JSON object through text that arrives in pieces, and reports where it ends or that it is broken.

A pushdown automaton after RFC 8259: one state, and a stack of the brackets that are open. It reads each character once
and keeps none of the text. It is looser than a parser only inside numbers, literals and `\\u` escapes, so the caller
has to parse the object at the end if it must be valid. What it must get right is the structure: a tag inside a string
is text, a tag outside one is not.
"""

from __future__ import annotations

import re
from enum import Enum, auto

_BLANKS = re.compile(r"[ \t\r\n]*")
_LETTERS = re.compile(r'[^"\\\x00-\x1f]*')  # of a string, up to what means something there
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")  # a number, true, false or null
_SCALAR_STARTS = frozenset("-0123456789tfn")
_ESCAPES = frozenset('"\\/bfnrtu')


class _State(Enum):
    VALUE = auto()  # a value must come
    FIRST_VALUE = auto()  # a value, or the end of the array
    KEY = auto()  # a key must come
    FIRST_KEY = auto()  # a key, or the end of the object
    COLON = auto()
    AFTER = auto()  # a comma, or the end of the object or array
    STRING = auto()
    ESCAPE = auto()  # behind a backslash in a string
    SCALAR = auto()


_WANT_VALUE = (_State.VALUE, _State.FIRST_VALUE)
_WANT_KEY = (_State.KEY, _State.FIRST_KEY)
_MAY_END = (_State.FIRST_VALUE, _State.FIRST_KEY, _State.AFTER)


class JsonScanner:
    """The scan of one object, from its opening brace on."""

    def __init__(self) -> None:
        self._state = _State.VALUE
        self._closers: list[str] = []  # of the objects and arrays that are open
        self._is_key = False  # whether the string being read is a key
        self.done = False  # the object is complete
        self.failed = False  # this is not JSON

    def feed(self, text: str, start: int = 0) -> int:
        """Read `text` from `start`; returns where reading stopped: behind the object, at the fault, or at the end."""
        while start < len(text) and not (self.done or self.failed):
            start = self._step(text, start)
        return start

    def _step(self, text: str, at: int) -> int:
        match self._state:
            case _State.STRING:
                return self._read_string(text, _end_of(_LETTERS, text, at))
            case _State.ESCAPE:
                self._state = _State.STRING
                return self._accept(text[at] in _ESCAPES, at)
            case _State.SCALAR:
                at = _end_of(_SCALAR, text, at)
                if at < len(text):
                    self._end_value()
                return at
        at = _end_of(_BLANKS, text, at)
        return at if at == len(text) else self._read_sign(text[at], at)

    def _read_string(self, text: str, at: int) -> int:
        if at == len(text):
            return at
        if text[at] == "\\":
            self._state = _State.ESCAPE
        elif text[at] == '"' and self._is_key:
            self._state = _State.COLON
        elif text[at] == '"':
            self._end_value()
        return self._accept(text[at] in '"\\', at)

    def _read_sign(self, sign: str, at: int) -> int:
        """Read one character outside strings and scalars."""
        state = self._state
        if sign == '"' and self._closers and state in (*_WANT_VALUE, *_WANT_KEY):
            self._is_key, self._state = state in _WANT_KEY, _State.STRING
        elif sign == "{" and state in _WANT_VALUE:
            self._closers.append("}")
            self._state = _State.FIRST_KEY
        elif sign == "[" and self._closers and state in _WANT_VALUE:
            self._closers.append("]")
            self._state = _State.FIRST_VALUE
        elif self._closers and sign == self._closers[-1] and state in _MAY_END:
            self._closers.pop()
            self._end_value()
        elif sign == "," and state is _State.AFTER:
            self._state = _State.KEY if self._closers[-1] == "}" else _State.VALUE
        elif sign == ":" and state is _State.COLON:
            self._state = _State.VALUE
        elif sign in _SCALAR_STARTS and self._closers and state in _WANT_VALUE:
            self._state = _State.SCALAR
            return at
        else:
            return self._accept(False, at)
        return at + 1

    def _end_value(self) -> None:
        self._state = _State.AFTER
        self.done = not self._closers

    def _accept(self, fits: bool, at: int) -> int:
        """Go past the character at `at`, or stay at it when it does not fit."""
        self.failed = not fits
        return at + fits


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None, "the patterns here match the empty text too"
    return match.end()

"""Keeps a model from writing the same key of a JSON object twice, where a grammar leaves the names of keys open.

A grammar cannot remember names, and small models repeat one until they are stopped. So the text is followed beside the
grammar, and tokens that would end a key as one that its object already has may not come next, unless nothing else
could. Names are compared as they are written: two spellings of one name differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A comment in Lark that says: the answer is JSON, or calls, with objects whose keys the grammar does not name.
OPEN_KEYS = "// open keys"
# A token that ends a key it is in, or begins and ends one: what is before the key's end, and the key.
_ENDS = re.compile(rb'([^"\\]*)"')
_WHOLE = re.compile(rb'[\s,]*"([^"\\]*)"')


class KeyTokens:
    """The tokens of one vocabulary with which keys end."""

    def __init__(self, tokens: Iterable[bytes]) -> None:
        self._ends: dict[bytes, list[int]] = {}  # by the rest of the key in front of the quotation mark
        self._whole: dict[bytes, list[int]] = {}  # by the key
        for id, token in enumerate(tokens):
            if b'"' not in token:
                continue
            if match := _ENDS.match(token):
                self._ends.setdefault(match[1], []).append(id)
            if match := _WHOLE.match(token):
                self._whole.setdefault(match[1], []).append(id)

    def ending(self, rest: bytes) -> list[int]:
        """Tokens that end a key of which only `rest` is missing."""
        return self._ends.get(rest, [])

    def whole(self, key: bytes) -> list[int]:
        """Tokens that write a key from its first quotation mark to its last."""
        return self._whole.get(key, [])


class Keys:
    """The keys of the objects that are open in one text: JSON, with anything but quotes and braces around it."""

    def __init__(self, tokens: KeyTokens) -> None:
        self._tokens = tokens
        self._open: list[set[bytes] | None] = []  # an object's keys, or None for an array
        self._in_string = self._escaped = self._is_key = self._expects_key = False
        self._key = bytearray()

    def copy(self) -> Keys:
        other = Keys(self._tokens)
        other._open = [None if keys is None else set(keys) for keys in self._open]
        other._in_string, other._escaped = self._in_string, self._escaped
        other._is_key, other._expects_key = self._is_key, self._expects_key
        other._key = bytearray(self._key)
        return other

    def take(self, text: bytes) -> None:
        """Go on by some of the text."""
        for byte in text:
            if self._in_string:
                self._take_in_string(byte)
            else:
                self._take_outside(byte)

    def repeating(self) -> list[int]:
        """Tokens that would write a key once more."""
        keys = self._open[-1] if self._open else None
        if not keys:
            return []
        if self._in_string and self._is_key:
            begun = bytes(self._key)
            return [id for key in keys if key.startswith(begun) for id in self._tokens.ending(key[len(begun) :])]
        return [] if self._in_string else [id for key in keys for id in self._tokens.whole(key)]

    def _take_in_string(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif byte == 0x5C:  # a backslash
            self._escaped = True
        elif byte == 0x22:  # a quotation mark
            self._in_string = False
            self._end_string()
            return
        if self._is_key:
            self._key.append(byte)

    def _end_string(self) -> None:
        if self._is_key:
            keys = self._open[-1]
            assert keys is not None, "only objects have keys"
            keys.add(bytes(self._key))
            self._is_key = self._expects_key = False

    def _take_outside(self, byte: int) -> None:
        match byte:
            case 0x22:
                self._in_string, self._is_key = True, self._expects_key
                self._key.clear()
            case 0x7B | 0x5B:  # { or [
                self._open.append(set() if byte == 0x7B else None)
                self._expects_key = byte == 0x7B
            case 0x7D | 0x5D if self._open:  # } or ]
                self._open.pop()
                self._expects_key = False
            case 0x2C:  # a comma
                self._expects_key = bool(self._open) and self._open[-1] is not None


def without(bitmask: bytes, token_ids: Iterable[int]) -> bytes:
    """A mask of tokens without these; the same where none would be left. A bit a token, the lowest first."""
    left = bytearray(bitmask)
    for id in token_ids:
        left[id >> 3] &= ~(1 << (id & 7))
    return bytes(left) if any(left) else bitmask

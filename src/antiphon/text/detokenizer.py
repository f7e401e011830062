"""Turns token ids into text, one at a time, without splitting characters. The text equals decoding all ids at once."""

from __future__ import annotations

import codecs

from antiphon.text.tokenizer import Tokenizer


class Detokenizer:
    """The text of one sequence of tokens.

    A character whose bytes are spread over several tokens is returned with the last of them. Bytes that are not UTF-8
    become U+FFFD, at the latest in `finish`. Control and end-of-sequence tokens have no text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._misses_bytes = False

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is still missing bytes."""
        data = self._tokenizer.shown_bytes(token_id)
        if not self._misses_bytes and data.isascii():
            return data.decode("ascii")
        text = self._decoder.decode(data)
        self._misses_bytes = bool(self._decoder.getstate()[0])
        return text

    def finish(self) -> str:
        """The remaining text: U+FFFD for an incomplete character, or nothing."""
        self._misses_bytes = False
        return self._decoder.decode(b"", final=True)

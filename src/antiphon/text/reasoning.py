"""Splits the output of a reasoning model into thought and answer while it is being written.

A thought is between `<think>` and `</think>` at the very beginning. The opening tag may be missing, because the prompt
already ended with it, and the closing one may never come. Blank lines next to the tags belong to neither part. Tags are
found in the text, however it is cut into pieces; text that may still turn out to be part of a tag is held back.
"""

from __future__ import annotations

from enum import Enum, auto

from antiphon.text.prompt import THINK_CLOSE, THINK_OPEN


class _State(Enum):
    START = auto()  # nothing but blanks and perhaps part of an opening tag yet
    REOPENING = auto()  # the prompt opened the thought; some models write the tag again
    THOUGHT_START = auto()  # in the thought, before its first letter
    THOUGHT = auto()
    ANSWER_START = auto()  # after the thought, before the answer's first letter
    ANSWER = auto()


class ReasoningSplitter:
    """Splits one stream. Feeding the text whole or letter by letter gives the same two texts."""

    def __init__(self, *, starts_in_thought: bool, continues: bool = False) -> None:
        """`continues`: the prompt ends inside the thought or the answer, so blank lines may belong to the text."""
        if continues:
            self._state = _State.THOUGHT if starts_in_thought else _State.ANSWER
        else:
            self._state = _State.REOPENING if starts_in_thought else _State.START
        self._held = ""

    @property
    def in_thought(self) -> bool:
        return self._state in (_State.REOPENING, _State.THOUGHT_START, _State.THOUGHT)

    def push(self, text: str) -> tuple[str, str]:
        """(more of the thought, more of the answer)"""
        self._held += text
        thought = answer = ""
        if self._state is _State.START:
            self._start()
        if self._state is _State.REOPENING:
            self._reopen()
        if self._state is _State.THOUGHT_START:
            self._skip_blank_lines(_State.THOUGHT)
        if self._state is _State.THOUGHT:
            thought = self._take_thought()
        if self._state is _State.ANSWER_START:
            self._skip_blank_lines(_State.ANSWER)
        if self._state is _State.ANSWER:
            answer, self._held = self._held, ""
        return thought, answer

    def finish(self) -> tuple[str, str]:
        """What was still held back, now that no tag can come."""
        held, self._held = self._held, ""
        return (held, "") if self.in_thought else ("", held)

    def _start(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(THINK_OPEN):
            self._held = begun.removeprefix(THINK_OPEN)
            self._state = _State.THOUGHT_START
        elif not THINK_OPEN.startswith(begun):
            self._state = _State.ANSWER

    def _reopen(self) -> None:
        begun = self._held.lstrip("\r\n")
        if begun == THINK_OPEN or not THINK_OPEN.startswith(begun):
            self._held = begun.removeprefix(THINK_OPEN)
            self._state = _State.THOUGHT_START

    def _skip_blank_lines(self, after: _State) -> None:
        self._held = self._held.lstrip("\r\n")
        if self._held:
            self._state = after

    def _take_thought(self) -> str:
        """The thought up to the closing tag, or up to what may be the start of one."""
        thought, tag, answer = self._held.partition(THINK_CLOSE)
        if tag:
            self._held, self._state = answer, _State.ANSWER_START
            return thought.rstrip("\r\n")
        cut = len(thought) - overlap(thought, THINK_CLOSE)
        cut = len(thought[:cut].rstrip("\r\n"))
        self._held = thought[cut:]
        return thought[:cut]


def overlap(text: str, tag: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `tag`, but not all of it."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:size])), 0)

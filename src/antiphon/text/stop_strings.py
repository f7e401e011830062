"""Finds the first of several stop strings in text that arrives in pieces, wherever the pieces are cut.

An automaton over all the strings at once (Aho and Corasick, 1975) reads each character once, so the cost does not grow
with the number or length of the strings. Its state is the longest part of a stop string that the text ends with. That
much is held back, and everything before it can be sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class StopStrings:
    """The search in one stream. The strings must not be empty."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # state → letter → state; state 0 is "nothing matched"
        self._fall_back: list[int] = [0]  # the longest proper suffix of a state that is a state too
        self._depth: list[int] = [0]  # letters matched in this state
        self._match: list[int] = [0]  # length of the longest stop string that ends here; 0: none
        for string in strings:
            self._add(string)
        self._link()
        self._state = 0
        self._held = ""  # the last letters, as many as the depth of the state
        self.found: str | None = None  # the stop string that is complete

    @property
    def matched(self) -> bool:
        """Whether a stop string is complete."""
        return self.found is not None

    def push(self, text: str, *, ignore: bool = False) -> str:
        """Text that is safe to send. Once a stop string is complete, `found` is set, the text before it is returned,
        and later calls return nothing. With `ignore`, strings completed by this text do not count.
        """
        if self.found is not None:
            return ""
        if not self._next[0]:  # there are no strings
            return text
        state, text = self._state, self._held + text
        for index in range(len(self._held), len(text)):
            state = self._step(state, text[index])
            if self._match[state] and not ignore:
                begin = index + 1 - self._match[state]
                self.found = text[begin : index + 1]
                return text[:begin]
        self._state = state
        cut = len(text) - self._depth[state]
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """What is still held back: the beginning of a stop string that never came."""
        held, self._held, self._state = self._held, "", 0
        return held if not self.matched else ""

    def _step(self, state: int, letter: str) -> int:
        while state and letter not in self._next[state]:
            state = self._fall_back[state]
        return self._next[state].get(letter, 0)

    def _add(self, string: str) -> None:
        assert string, "a stop string must not be empty"
        state = 0
        for letter in string:
            if letter not in self._next[state]:
                self._next[state][letter] = len(self._next)
                self._next.append({})
                self._fall_back.append(0)
                self._depth.append(self._depth[state] + 1)
                self._match.append(0)
            state = self._next[state][letter]
        self._match[state] = len(string)

    def _link(self) -> None:
        """Set `_fall_back`, shallow states first, and let a state match what its suffix matches."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for letter, below in self._next[state].items():
                self._fall_back[below] = self._step(self._fall_back[state], letter)
                waiting.append(below)
            self._match[state] = self._match[state] or self._match[self._fall_back[state]]

"""Finds the first of several stop strings in text that arrives in pieces, wherever the pieces are cut.

An automaton over all the strings at once (Aho and Corasick, 1975) reads each character once, so the cost does not grow
with the number or length of the strings. It is built once for a request and shared by the searches of its streams. A
search's state is how much of some stop string the text now ends with; exactly so much is held back, and everything
before it can be sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class StopStrings:
    """Stop strings, which must not be empty. Immutable, so that any number of searches may share it."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # state → letter → state; state 0 is "nothing matched"
        self._fall_back: list[int] = [0]  # the longest proper suffix of a state that is a state too
        self.depth: list[int] = [0]  # letters matched in this state
        self.match: list[int] = [0]  # length of the longest stop string that ends here; 0: none
        for string in strings:
            self._add(string)
        self._link()

    @property
    def is_empty(self) -> bool:
        """Whether there are no strings."""
        return not self._next[0]

    def step(self, state: int, letter: str) -> int:
        """The state after one more letter."""
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
                self.depth.append(self.depth[state] + 1)
                self.match.append(0)
            state = self._next[state][letter]
        self.match[state] = len(string)

    def _link(self) -> None:
        """Set `_fall_back`, shallow states first, and let a state match what its suffix matches."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for letter, below in self._next[state].items():
                self._fall_back[below] = self.step(self._fall_back[state], letter)
                waiting.append(below)
            self.match[state] = self.match[state] or self.match[self._fall_back[state]]


class StopSearch:
    """The search of one stream."""

    def __init__(self, strings: StopStrings) -> None:
        self._strings = strings
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
        strings = self._strings
        if strings.is_empty:
            return text
        state, text = self._state, self._held + text
        for index in range(len(self._held), len(text)):
            state = strings.step(state, text[index])
            if strings.match[state] and not ignore:
                begin = index + 1 - strings.match[state]
                self.found = text[begin : index + 1]
                return text[:begin]
        self._state = state
        cut = len(text) - strings.depth[state]
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """What is still held back: the beginning of a stop string that never came."""
        held, self._held, self._state = self._held, "", 0
        return held if not self.matched else ""

"""How much of an answer has been written: the tokens of its thought, and those after it.

Follows one request by its tokens, to tell its thought from its answer as the engine does, with the same tags. Only the
lengths matter here, so a mistake costs a worse prediction and nothing else. Knows no text and no time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum, auto

from antiphon.request import ThinkingLimit, ThoughtClosed


class Part(Enum):
    """What is being written."""

    OPENING = auto()  # perhaps the tag that opens a thought
    THOUGHT = auto()
    ANSWER = auto()


class AnswerParts:
    """The lengths of one request's thought and answer, in tokens."""

    def __init__(self, limit: ThinkingLimit | None, token_ids: Iterable[int] = ()) -> None:
        """`limit`: None if the request has no thought, or none that can be recognised; `token_ids`: known ones."""
        self.thinks = limit is not None and limit.budget > 0  # whether a thought was expected
        self.budget = limit.budget if limit else 0  # maximum tokens of the thought
        self.num_thought = 0  # tokens of the thought, its closing tag included
        self.num_answer = 0  # tokens after it
        self.was_cut = False  # whether the thought was closed because its budget was used up
        self._part = Part.ANSWER
        if limit is not None and self.thinks:
            self._part = Part.OPENING if limit.begin_token_ids else Part.THOUGHT
            self._opening_tags = limit.begin_token_ids
            self._closing_tags = limit.end_token_ids
            self._last_of_tags = frozenset(tag[-1] for tag in limit.end_token_ids)
            self._latest = deque[int](maxlen=max(map(len, (*limit.begin_token_ids, *limit.end_token_ids))))
        for token_id in token_ids:
            self.take(token_id)

    @property
    def is_thinking(self) -> bool:
        """Whether the thought has not ended, as far as is known."""
        return self._part is not Part.ANSWER

    @property
    def num_tokens(self) -> int:
        """All tokens so far."""
        return self.num_thought + self.num_answer

    def take(self, token_id: int, closed: ThoughtClosed | None = None) -> None:
        """Follow the request by a token; `closed`: why the engine began to close the thought with it."""
        if self._part is Part.ANSWER:
            self.num_answer += 1
            return
        self.num_thought += 1
        self.was_cut |= closed is ThoughtClosed.BUDGET
        self._latest.append(token_id)
        if self._part is Part.OPENING:
            self._take_opening()
        elif token_id in self._last_of_tags and any(self._ends_with(tag) for tag in self._closing_tags):
            self._part = Part.ANSWER

    def _take_opening(self) -> None:
        said = tuple(self._latest)
        if said in self._opening_tags:
            self._part = Part.THOUGHT
        elif not any(tag[: len(said)] == said for tag in self._opening_tags):
            self._part = Part.ANSWER
            self.num_thought, self.num_answer = 0, self.num_thought

    def _ends_with(self, tag: tuple[int, ...]) -> bool:
        start = len(self._latest) - len(tag)
        return start >= 0 and all(self._latest[start + at] == token_id for at, token_id in enumerate(tag))

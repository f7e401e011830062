"""One choice's text as it is generated: token ids in, pieces of thought and answer out.

Puts detokenizer, reasoning splitter and stop strings in a row. What it returns can be sent at once and adds up to the
same text as if everything had been there from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from antiphon.text.detokenizer import Detokenizer
from antiphon.text.prompt import THINK_CLOSE, THINK_OPEN
from antiphon.text.reasoning import ReasoningSplitter
from antiphon.text.stop_strings import StopStrings
from antiphon.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What became certain with one token."""

    content: str = ""
    reasoning: str = ""
    stop_string: str | None = None  # it was found; nothing more will come, so the request can be aborted

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self.stop_string is not None


class TextStream:
    """The text of one choice.

    Stop strings are looked for in the answer, not in the thought: a blank line is a fair place to stop an answer, and
    would leave every thought without one. A match completed before `min_tokens` tokens is ignored. `thinks` says
    whether there may be a thought at all; without it every text is content.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: Iterable[str] = (),
        starts_in_thought: bool = False,
        thinks: bool = False,
        min_tokens: int = 0,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._splitter = ReasoningSplitter(starts_in_thought=starts_in_thought) if thinks else None
        self._stop = StopStrings(stop)
        self._min_tokens = min_tokens
        # A tag may be flagged as a control token, which has no text; here it has.
        tags = {tokenizer.control_token_id(tag): tag for tag in (THINK_OPEN, THINK_CLOSE)} if thinks else {}
        self._tags = {id: tag for id, tag in tags.items() if id is not None}
        self.num_tokens = 0
        self.num_reasoning_tokens = 0  # those of the tags included

    def push(self, token_id: int) -> TextDelta:
        """The text that `token_id` makes certain."""
        if self._stop.matched:
            return TextDelta(stop_string=self._stop.found)
        self.num_tokens += 1
        text = self._text_of(token_id)
        was_in_thought = self._in_thought
        delta = self._split(text)
        self.num_reasoning_tokens += was_in_thought or self._in_thought
        return delta

    def finish(self) -> TextDelta:
        """What was still held back, now that no token follows."""
        if self._stop.matched:
            return TextDelta(stop_string=self._stop.found)
        delta = self._split(self._detokenizer.finish())
        thought, answer = self._splitter.finish() if self._splitter else ("", "")
        content = delta.content + self._search(answer)
        content += self._stop.finish()
        return TextDelta(content, delta.reasoning + thought, self._stop.found)

    @property
    def _in_thought(self) -> bool:
        return self._splitter is not None and self._splitter.in_thought

    def _text_of(self, token_id: int) -> str:
        """The text that this token completes; a tag ends a character that still misses bytes, as its letters would."""
        tag = self._tags.get(token_id)
        return self._detokenizer.push(token_id) if tag is None else self._detokenizer.finish() + tag

    def _split(self, text: str) -> TextDelta:
        thought, answer = self._splitter.push(text) if self._splitter else ("", text)
        return TextDelta(self._search(answer), thought, self._stop.found)

    def _search(self, answer: str) -> str:
        return self._stop.push(answer, ignore=self.num_tokens < self._min_tokens)

"""One choice's text as it is generated: token ids in, pieces of thought and answer and whole tool calls out.

Puts detokenizer, reasoning splitter, stop strings and the parser of tool calls in a row. What it returns can be sent at
once and adds up to the same text as if everything had been there from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from antiphon.text.detokenizer import Detokenizer
from antiphon.text.prompt import THINK_CLOSE, THINK_OPEN
from antiphon.text.reasoning import ReasoningSplitter
from antiphon.text.stop_strings import StopStrings
from antiphon.text.tokenizer import Tokenizer
from antiphon.text.tool_calls import Found, ToolCallParser, ToolReading
from antiphon.text.tool_shapes import ToolCall


class TextDelta(NamedTuple):  # one is made for each token of each stream, and a frozen dataclass takes longer
    """What became certain with one token."""

    content: str = ""
    reasoning: str = ""
    calls: Sequence[ToolCall] = ()
    stop_string: str | None = None  # it was found
    stopped: bool = False  # nothing more will come, so the request can be aborted


class TextStream:
    """The text of one choice.

    Stop strings are looked for in the answer, not in the thought: a blank line is a fair place to stop an answer, and
    would leave every thought without one. A match completed before `min_tokens` tokens is ignored. `thinks` says
    whether there may be a thought at all; without it every text is content. Tool calls are looked for in the answer,
    where `tools` says how.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: Iterable[str] = (),
        starts_in_thought: bool = False,
        thinks: bool = False,
        min_tokens: int = 0,
        tools: ToolReading | None = None,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._splitter = ReasoningSplitter(starts_in_thought=starts_in_thought) if thinks else None
        self._stop = StopStrings(stop)
        self._tools = ToolCallParser(tools) if tools else None
        self._min_tokens = min_tokens
        # A tag may be flagged as a control token, which has no text; here it has.
        tags = (*((THINK_OPEN, THINK_CLOSE) if thinks else ()), *(tools.shape.tags if tools else ()))
        ids = {tokenizer.control_token_id(tag): tag for tag in tags}
        self._tags = {id: tag for id, tag in ids.items() if id is not None}
        self.num_tokens = 0
        self.num_reasoning_tokens = 0  # those of the tags included

    def push(self, token_id: int) -> TextDelta:
        """The text that `token_id` makes certain."""
        if self._stopped:
            return self._delta("", Found())
        self.num_tokens += 1
        text = self._text_of(token_id)
        was_in_thought = self._in_thought
        thought, answer = self._split(text)
        self.num_reasoning_tokens += was_in_thought or self._in_thought
        found = self._find(self._search(answer))
        return self._delta(thought, self._and_rest(found) if self._stop.matched else found)

    def finish(self) -> TextDelta:
        """What was still held back, now that no token follows."""
        if self._stopped:
            return self._delta("", Found())
        thought, answer = self._split(self._detokenizer.finish())
        more_thought, more_answer = self._splitter.finish() if self._splitter else ("", "")
        content = self._search(answer + more_answer) + self._stop.finish()
        return self._delta(thought + more_thought, self._and_rest(self._find(content)))

    @property
    def _in_thought(self) -> bool:
        return self._splitter is not None and self._splitter.in_thought

    @property
    def _stopped(self) -> bool:
        return self._stop.matched or (self._tools is not None and self._tools.complete)

    def _delta(self, thought: str, found: Found) -> TextDelta:
        return TextDelta(found.content, thought, found.calls, self._stop.found, self._stopped)

    def _text_of(self, token_id: int) -> str:
        """The text that this token completes; a tag ends a character that still misses bytes, as its letters would."""
        tag = self._tags.get(token_id)
        return self._detokenizer.push(token_id) if tag is None else self._detokenizer.finish() + tag

    def _split(self, text: str) -> tuple[str, str]:
        return self._splitter.push(text) if self._splitter else ("", text)

    def _search(self, answer: str) -> str:
        return self._stop.push(answer, ignore=self.num_tokens < self._min_tokens)

    def _find(self, content: str) -> Found:
        return self._tools.push(content) if self._tools else Found(content)

    def _and_rest(self, found: Found) -> Found:
        """With what the parser of calls still held back, as nothing follows."""
        if self._tools is None:
            return found
        rest = self._tools.finish()
        return Found(found.content + rest.content, (*found.calls, *rest.calls))

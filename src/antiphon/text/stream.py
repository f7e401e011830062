"""One choice's text as it is generated: token ids in, pieces of thought, answer and tool calls out.

Puts detokenizer, reasoning splitter, the parser of tool calls and stop strings in a row. What it returns can be sent at
once and adds up to the same text as if everything had been there from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from antiphon.text.detokenizer import Detokenizer
from antiphon.text.forced_calls import ForcedCallParser
from antiphon.text.prompt import THINK_CLOSE, THINK_OPEN
from antiphon.text.reasoning import ReasoningSplitter
from antiphon.text.stop_strings import StopSearch, StopStrings
from antiphon.text.tokenizer import Tokenizer
from antiphon.text.tool_calls import CallParser, CallPart, Part, ToolCallParser, ToolReading


class TextDelta(NamedTuple):  # one is made for each token of each stream, and a frozen dataclass takes longer
    """What one token made certain."""

    content: str = ""
    reasoning: str = ""
    calls: Sequence[CallPart] = ()
    stop_string: str | None = None  # it was found
    stopped: bool = False  # nothing more will come, so the request can be aborted


class TextStream:
    """The text of one choice.

    Stop strings are looked for in the text of the answer: not in the thought, since a blank line is a fair place to
    stop an answer and would leave every thought without one, and not in tool calls, which are no text. A match
    completed before `min_tokens` tokens is ignored. `thinks`: whether there may be a thought at all; without it every
    text is content. `continues`: the prompt ends inside a thought or an answer. `tools`: how tool calls are read in the
    answer; None: they are text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: StopStrings | Iterable[str] = (),
        starts_in_thought: bool = False,
        continues: bool = False,
        thinks: bool = False,
        min_tokens: int = 0,
        tools: ToolReading | None = None,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._splitter: ReasoningSplitter | None = None
        if thinks:
            self._splitter = ReasoningSplitter(starts_in_thought=starts_in_thought, continues=continues)
        self._stop = StopSearch(stop if isinstance(stop, StopStrings) else StopStrings(stop))
        self._calls = _call_parser(tools) if tools else None
        self._min_tokens = min_tokens
        # A tag may be flagged as a control token, which has no text elsewhere.
        tags = (*((THINK_OPEN, THINK_CLOSE) if thinks else ()), *(tools.shape.tags if tools else ()))
        ids = {tokenizer.control_token_id(tag): tag for tag in tags}
        self._tags = {id: tag for id, tag in ids.items() if id is not None}
        self.num_tokens = 0
        self.num_reasoning_tokens = 0  # including the tags

    def push(self, token_id: int) -> TextDelta:
        """The text that `token_id` makes certain."""
        if self._stopped:
            return self._delta()
        self.num_tokens += 1
        text = self._text_of(token_id)
        if self._splitter is None:
            return self._delta("", *self._read(text))
        was_in_thought = self._splitter.in_thought
        thought, answer = self._splitter.push(text)
        self.num_reasoning_tokens += was_in_thought or self._splitter.in_thought
        return self._delta(thought, *self._read(answer))

    def finish(self) -> TextDelta:
        """What was still held back, now that no token follows."""
        if self._stopped:
            return self._delta()
        thought, answer = self._split(self._detokenizer.finish())
        more_thought, more_answer = self._splitter.finish() if self._splitter else ("", "")
        content, calls = self._read(answer + more_answer, is_last=True)
        return self._delta(thought + more_thought, content, calls)

    @property
    def _stopped(self) -> bool:
        return self._stop.matched or (self._calls is not None and self._calls.complete)

    def _delta(self, thought: str = "", content: str = "", calls: Sequence[CallPart] = ()) -> TextDelta:
        return TextDelta(content, thought, calls, self._stop.found, self._stopped)

    def _text_of(self, token_id: int) -> str:
        """The text that this token completes. A tag ends a character that still misses bytes, as letters would."""
        tag = self._tags.get(token_id)
        return self._detokenizer.push(token_id) if tag is None else self._detokenizer.finish() + tag

    def _split(self, text: str) -> tuple[str, str]:
        return self._splitter.push(text) if self._splitter else ("", text)

    def _read(self, answer: str, *, is_last: bool = False) -> tuple[str, Sequence[CallPart]]:
        """The text and the calls that more of the answer makes certain."""
        if self._calls is None:
            return self._search(answer) + (self._stop.finish() if is_last else ""), ()
        parts = self._calls.push(answer)
        if is_last and not self._calls.complete:
            parts += self._calls.finish()
        return self._sort(parts, is_last=is_last)

    def _sort(self, parts: Sequence[Part], *, is_last: bool) -> tuple[str, Sequence[CallPart]]:
        """Text and calls apart, up to a stop string, which cannot span a call."""
        content: list[str] = []
        calls: list[CallPart] = []
        for part in parts:
            if self._stop.matched:
                break
            if isinstance(part, str):
                content.append(self._search(part))
            else:
                content.append(self._stop.finish())
                calls.append(part)
        if is_last:
            content.append(self._stop.finish())
        return "".join(content), calls

    def _search(self, text: str) -> str:
        return self._stop.push(text, ignore=self.num_tokens < self._min_tokens)


def _call_parser(tools: ToolReading) -> CallParser:
    return ForcedCallParser(tools) if tools.forced else ToolCallParser(tools)

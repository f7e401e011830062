"""One choice of a request: turns the engine's events into pieces of text."""

from __future__ import annotations

import secrets
import time

from antiphon.api.pieces import Piece, ScoredToken, ToolCallDelta
from antiphon.engine.requests.stream import TokenStream
from antiphon.errors import (
    EngineError,
    NotReady,
)
from antiphon.metrics import RequestAccount
from antiphon.request import (
    FinishReason,
    TokenEvent,
    TokenLogprobs,
)
from antiphon.text import CallPart, TextDelta, TextStream


class Choice:
    """One choice of a request: turns the engine's events into pieces of text."""

    def __init__(self, index: int, events: TokenStream, text: TextStream, account: RequestAccount) -> None:
        self.index = index
        self.events = events
        self.num_tokens = 0
        self.num_cached_tokens = 0
        self.num_drafted_tokens = self.num_accepted_tokens = 0
        self.finished = False
        self._text = text
        self._account = account
        self._waiting = Piece(index)
        self._num_calls = 0
        self._call_is_open = False  # the last call's arguments are not complete yet
        self.num_unread = 0  # tokens received while a piece was waiting to be taken
        self.first_token_at = self.last_token_at = 0.0  # time.monotonic()

    @property
    def num_reasoning_tokens(self) -> int:
        return self._text.num_reasoning_tokens

    @property
    def seconds_per_token(self) -> float:
        """The mean time between two of its tokens, of which there are at least two."""
        return (self.last_token_at - self.first_token_at) / (self.num_tokens - 1)

    @property
    def has_news(self) -> bool:
        """Whether a piece waits to be taken."""
        return bool(self._waiting)

    def receive(self, event: TokenEvent) -> None:
        """Turn one event into text; the last event sets `finished`."""
        reason = event.finish_reason
        if reason is FinishReason.ERROR:
            raise EngineError(event.error or "The engine failed this request.")
        if reason is FinishReason.ABORT:
            raise NotReady("The server stopped before this answer was complete.")
        self.num_cached_tokens = event.num_cached_tokens or self.num_cached_tokens
        self.num_drafted_tokens += event.num_drafted_tokens
        self.num_accepted_tokens += event.num_accepted_tokens
        if event.is_prompt and event.logprobs is not None:
            self._waiting.prompt_scores.append(event.logprobs)
        if event.token_id is not None:
            self.num_unread += self.has_news
            self._count_token()
            if event.thought_closed is not None:
                self._waiting.thought_closed = event.thought_closed.value
                self._account.count_closed_thought(event.thought_closed.value)
            if reason is FinishReason.STOP:  # the token that ends a sequence is not part of its text
                self._waiting.end_token_ids.append(event.token_id)
                if event.logprobs is not None:
                    self._waiting.end_scored.append(ScoredToken(event.token_id, event.logprobs))
            else:
                self._push(event.token_id, event.logprobs)
        if reason is not None and not self.finished:
            self._finish(reason)

    def time_out(self) -> None:
        """End it with what it has; idempotent."""
        if not self.finished:
            self._waiting.ended_by = "timeout"
            self.events.cut()

    def take(self) -> Piece | None:
        """The text and tokens received since the last call, or None."""
        piece = self._waiting
        if not piece:
            return None
        self._waiting = Piece(self.index)
        self.num_unread = 0
        return piece

    def _push(self, token_id: int, scores: TokenLogprobs | None) -> None:
        num_in_thought = self._text.num_reasoning_tokens
        delta = self._text.push(token_id)
        self._add(delta)
        self._waiting.token_ids.append(token_id)
        if scores is not None:
            self._waiting.scored.append(ScoredToken(token_id, scores))
            self._waiting.num_scored_in_thought += self._text.num_reasoning_tokens - num_in_thought
        if delta.stopped:
            self._end(FinishReason.STOP, delta)
            self.events.finish()

    def _finish(self, reason: FinishReason) -> None:
        rest = self._text.finish()
        self._add(rest)
        # A stop string may be complete only now, if the last token ended inside a character.
        self._end(FinishReason.STOP if rest.stopped else reason, rest)

    def _add(self, delta: TextDelta) -> None:
        piece = self._waiting
        if delta.content or delta.calls:
            self._account.observe_first_answer()
        piece.content += delta.content
        piece.reasoning += delta.reasoning
        for part in delta.calls:
            self._add_call(part)

    def _add_call(self, part: CallPart) -> None:
        """Add a part of a call to the waiting part of the same call."""
        calls = self._waiting.tool_calls
        if part.name is not None:
            self._num_calls += 1
            calls.append(ToolCallDelta(self._num_calls - 1, f"call_{secrets.token_hex(12)}", part.name))
        index, waiting = self._num_calls - 1, ""
        if calls and calls[-1].index == index and calls[-1].id is None:
            waiting = calls.pop().arguments
        calls.append(ToolCallDelta(index, arguments=waiting + part.arguments, is_last=part.is_last))
        self._call_is_open = not part.is_last

    def _end(self, reason: FinishReason, last: TextDelta) -> None:
        made_calls = reason is FinishReason.STOP and self._num_calls > 0 and not self._call_is_open
        self._waiting.finish_reason = "tool_calls" if made_calls else reason.value
        self._account.count_finished_choice(self._waiting.finish_reason)
        self._waiting.stop_string = last.stop_string
        if reason is not FinishReason.LENGTH:
            self._waiting.ended_by = None
        self.finished = True

    def _count_token(self) -> None:
        now = time.monotonic()
        self._account.count_token()
        if self.num_tokens:
            self._account.observe_gap(now - self.last_token_at)
        else:
            self.first_token_at = now
            self._account.observe_first_token(now, self.events.begun_at)
        self.last_token_at = now
        self.num_tokens += 1

"""One request's life after it was understood: sequences go to the engine, tokens come back and become text.

Owns the choices of one request: their streams of tokens, their text, their accounts. It promises that either every
sequence of a request is accepted or none is; that leaving the `async with` block aborts whatever still runs; that the
request ends exactly once in the metrics; and that tokens which wait already are handed over together, so that a slow
reader costs fewer, larger chunks. It must not know JSON, SSE or which endpoint asked.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from antiphon.engine.stream import TokenStream
from antiphon.errors import AntiphonError, EngineError, InvalidRequest, NotReady, SlowReader
from antiphon.http.front import Front
from antiphon.http.rates import Reservation
from antiphon.metrics import RequestAccount
from antiphon.request import FinishReason, GenerateRequest, SamplingParams, TokenEvent, TokenLogprobs
from antiphon.text import TextDelta, TextStream, ToolReading


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as the model sees it."""

    token_ids: list[int]
    sampling: SamplingParams
    starts_in_thought: bool = False
    num_scored_tokens: int = 0  # at its end, whose log-probabilities are told


@dataclass(frozen=True, slots=True)
class Job:
    """A whole request in the engine's terms: `n` choices for each prompt."""

    request_id: str
    prompts: Sequence[Prompt]
    stops: Sequence[str] = ()
    n: int = 1
    splits_thought: bool = True  # whether a thought is told apart from the answer
    priority: int = 0  # lower goes first
    tools: ToolReading | None = None  # how calls in the answers are read; None: they are text


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token that was drawn, with its log-probability and its rivals'."""

    token_id: int
    scores: TokenLogprobs


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What is new in one of a choice's tool calls; its first delta has `id` and `name`."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""  # of the JSON text that they are


@dataclass(slots=True)
class Piece:
    """What is new in one choice since its last piece; the last one has the finish reason."""

    index: int
    content: str = ""
    reasoning: str = ""
    token_ids: list[int] = field(default_factory=list)  # drawn, but for the one that ended the choice
    prompt_scores: list[TokenLogprobs] = field(default_factory=list)  # of the prompt's scored tokens, in order
    scored: list[ScoredToken] = field(default_factory=list)
    finish_reason: str | None = None
    tool_calls: list[ToolCallDelta] = field(default_factory=list)
    stop_string: str | None = None  # where one ended the choice
    end_token_ids: list[int] = field(default_factory=list)  # the token that ended it, where one did
    thought_closed: str | None = None  # why the engine closed the thought; waits for something to go out with

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.scored or self.tool_calls or self.finish_reason)


@dataclass(slots=True)
class Tally:
    """The tokens of a request, for its usage."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Where a request's time went, in seconds; of several choices the first to begin and the last to end count."""

    queue: float  # until the engine began with it
    prefill: float  # from there to the first token
    decode: float  # from there to the last one
    num_decoded: int  # tokens that came in that time


class Choice:
    """One sequence: takes the engine's events, gives pieces of text."""

    def __init__(self, index: int, events: TokenStream, text: TextStream, account: RequestAccount) -> None:
        self.index = index
        self.events = events
        self.num_tokens = 0
        self.num_cached_tokens = 0
        self.finished = False
        self._text = text
        self._account = account
        self._waiting = Piece(index)
        self._num_calls = 0
        self.num_unread = 0  # tokens that came since there was something to take
        self.first_token_at = self.last_token_at = 0.0  # time.monotonic()

    @property
    def num_reasoning_tokens(self) -> int:
        return self._text.num_reasoning_tokens

    @property
    def has_news(self) -> bool:
        """Whether a piece waits to be taken."""
        return bool(self._waiting)

    def receive(self, event: TokenEvent) -> None:
        """Turn one event into text; sets `finished` with the last."""
        reason = event.finish_reason
        if reason is FinishReason.ERROR:
            raise EngineError(event.error or "The engine failed this request.")
        if reason is FinishReason.ABORT:
            raise NotReady("The server stopped before this answer was complete.")
        self.num_cached_tokens = event.num_cached_tokens or self.num_cached_tokens
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
            else:
                self._push(event.token_id, event.logprobs)
        if reason is not None and not self.finished:
            self._finish(reason)

    def take(self) -> Piece | None:
        """What came since the last call, if anything did."""
        piece = self._waiting
        if not piece:
            return None
        self._waiting = Piece(self.index)
        self.num_unread = 0
        return piece

    def _push(self, token_id: int, scores: TokenLogprobs | None) -> None:
        delta = self._text.push(token_id)
        self._add(delta)
        self._waiting.token_ids.append(token_id)
        if scores is not None:
            self._waiting.scored.append(ScoredToken(token_id, scores))
        if delta.stopped:
            self._end(FinishReason.STOP, delta)
            self.events.finish()

    def _finish(self, reason: FinishReason) -> None:
        rest = self._text.finish()
        self._add(rest)
        # A stop string may be complete only now, in a character that the last token left without its last bytes.
        self._end(FinishReason.STOP if rest.stopped else reason, rest)

    def _add(self, delta: TextDelta) -> None:
        piece = self._waiting
        piece.content += delta.content
        piece.reasoning += delta.reasoning
        for call in delta.calls:
            piece.tool_calls.append(ToolCallDelta(self._num_calls, f"call_{secrets.token_hex(12)}", call.name))
            piece.tool_calls.append(ToolCallDelta(self._num_calls, arguments=call.arguments))
            self._num_calls += 1

    def _end(self, reason: FinishReason, last: TextDelta) -> None:
        made_calls = reason is FinishReason.STOP and self._num_calls > 0
        self._waiting.finish_reason = "tool_calls" if made_calls else reason.value
        self._waiting.stop_string = last.stop_string
        self.finished = True

    def _count_token(self) -> None:
        now = time.monotonic()
        if self.num_tokens:
            self._account.observe_gap(now - self.last_token_at)
        else:
            self.first_token_at = now
            self._account.observe_first_token(now)
        self.last_token_at = now
        self.num_tokens += 1


class Generation:
    """All choices of one accepted request; use as an async context manager and iterate for the pieces."""

    def __init__(
        self,
        choices: list[Choice],
        prompts: Sequence[Prompt],
        account: RequestAccount,
        reservation: Reservation | None = None,
        *,
        max_unread_tokens: int,
    ) -> None:
        self._choices = choices
        self._prompts = prompts
        self._account = account
        self._reservation = reservation or Reservation()
        self._max_unread_tokens = max_unread_tokens
        self._is_closed = False
        self._accepted_at = time.monotonic()
        self._news = asyncio.Event()
        self._failure: Exception | None = None

    async def __aenter__(self) -> Generation:
        for choice in self._choices:
            choice.events.listen(partial(self._hear, choice))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        running = len(self._choices)
        while running:
            await self._news.wait()
            self._news.clear()
            failure = self._failure  # looked at now: what came before it goes out before it
            for choice in self._choices:
                if (piece := choice.take()) is not None:
                    running -= piece.finish_reason is not None
                    yield piece
            if failure is not None:
                raise failure

    @property
    def tally(self) -> Tally:
        """Tokens so far; complete when the iteration is over. A prompt shared by several choices counts once."""
        n = len(self._choices) // len(self._prompts)
        return Tally(
            prompt=sum(len(prompt.token_ids) for prompt in self._prompts),
            cached=sum(choice.num_cached_tokens for choice in self._choices[::n]),
            completion=sum(choice.num_tokens for choice in self._choices),
            reasoning=sum(choice.num_reasoning_tokens for choice in self._choices),
        )

    @property
    def is_over(self) -> bool:
        """Whether every choice has ended and been read to its end."""
        return all(choice.finished and not choice.has_news for choice in self._choices)

    @property
    def times(self) -> Times:
        """Where the time went so far."""
        heard = [choice for choice in self._choices if choice.num_tokens]
        if not heard:
            return Times(time.monotonic() - self._accepted_at, 0.0, 0.0, 0)
        first, last = min(each.first_token_at for each in heard), max(each.last_token_at for each in heard)
        begun = min(each.events.begun_at or first for each in heard)
        num_decoded = sum(each.num_tokens - 1 for each in heard)
        return Times(max(0.0, begun - self._accepted_at), max(0.0, first - begun), last - first, num_decoded)

    def _hear(self, choice: Choice, event: TokenEvent | EngineError) -> None:
        """Feed one choice, as its events come; whoever iterates takes what has gathered by its turn."""
        try:
            if isinstance(event, EngineError):
                raise event
            choice.receive(event)
            if not choice.finished and choice.num_unread > self._max_unread_tokens:
                raise SlowReader(f"The answer was given up: {self._max_unread_tokens} tokens of it were not read.")
        except SlowReader as error:  # whoever iterates waits for the reader, so it ends here and now
            self._failure = self._failure or error
            self._close()
        except Exception as error:  # handed to whoever iterates, which raises it
            self._failure = self._failure or error
            choice.events.close()
        if choice.finished:
            choice.events.close()
        self._news.set()

    def _close(self) -> None:
        """Abort what still runs and close the account, once."""
        if self._is_closed:
            return
        self._is_closed = True
        for choice in self._choices:
            choice.events.close()
        self._close_account()

    def _close_account(self) -> None:
        tally = self.tally
        self._account.count_tokens(tally.prompt, tally.cached, tally.completion, tally.reasoning)
        self._reservation.settle(tally.prompt + tally.completion)
        if all(choice.finished for choice in self._choices):
            self._account.end("finished")
        elif self._failure is not None and not isinstance(self._failure, SlowReader):
            self._account.end("failed")
        else:
            self._account.end("aborted")


def start_generation(front: Front, job: Job, account: RequestAccount) -> Generation:
    """Hand every sequence of `job` to the engine, or none: the first refusal takes the others back.

    Raises:
        InvalidRequest: it has more sequences than the server ever takes, so that coming back would not help.
        Overloaded, NotReady, ContextLengthExceeded: as the engine's client refuses.
        RateLimited: its key has had its tokens of this minute.
    """
    _check_num_sequences(job, front.settings.max_queued_requests)
    reservation = _reserve(front, job, account.key)
    choices: list[Choice] = []
    try:
        for prompt in job.prompts:
            for choice_index in range(job.n):
                index = len(choices)
                events = front.engine.generate(
                    GenerateRequest(
                        f"{job.request_id}-{index}",
                        prompt.token_ids,
                        prompt.sampling,
                        choice_index,
                        num_scored_tokens=prompt.num_scored_tokens,
                        priority=job.priority,
                    )
                )
                choices.append(Choice(index, events, _text_stream(front, job, prompt), account))
    except AntiphonError:
        for choice in choices:
            front.engine.abort(choice.events.request_id)
        reservation.settle(0)
        raise
    account.accept()
    cap = front.settings.max_unread_tokens
    return Generation(choices, job.prompts, account, reservation, max_unread_tokens=cap)


def _reserve(front: Front, job: Job, key: str) -> Reservation:
    prompt = sum(len(prompt.token_ids) for prompt in job.prompts)
    answer = sum(prompt.sampling.max_tokens for prompt in job.prompts) * job.n
    return front.rates.reserve(key, prompt, answer)


def _check_num_sequences(job: Job, most: int) -> None:
    num_sequences = len(job.prompts) * job.n
    if num_sequences > most:
        # One choice for each of too many prompts cannot be helped with `n`.
        param = "n" if job.n > 1 else "prompt"
        raise InvalidRequest(
            f"'{param}' is too large: the request has {num_sequences} choices, and this server takes {most} unfinished "
            "ones at most.",
            param=param,
        )


def _text_stream(front: Front, job: Job, prompt: Prompt) -> TextStream:
    return front.model.text.stream(
        stop=list(job.stops),
        starts_in_thought=prompt.starts_in_thought,
        thinks=None if job.splits_thought else False,
        min_tokens=prompt.sampling.min_tokens,
        tools=job.tools,
    )

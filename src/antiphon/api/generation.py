"""One request's life after it was understood: sequences go to the engine, tokens come back and become text.

Owns the choices of one request: their streams of tokens, their text, their accounts. It promises that either every
sequence of a request is accepted or none is; that leaving the `async with` block aborts whatever still runs; that the
request ends exactly once in the metrics; and that tokens which wait already are handed over together, so that a slow
reader costs fewer, larger chunks. It must not know JSON, SSE or which endpoint asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from types import TracebackType

from antiphon.api.choice import Choice
from antiphon.api.context import Context
from antiphon.api.job import Job, Prompt
from antiphon.api.pieces import Piece, Tally, Times
from antiphon.errors import AntiphonError, EngineError, InvalidRequest, SlowReader
from antiphon.metrics import RequestAccount
from antiphon.rates import Reservation
from antiphon.request import GenerateRequest, TokenEvent
from antiphon.text import StopStrings, TextStream


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


def start_generation(context: Context, job: Job, account: RequestAccount) -> Generation:
    """Hand every sequence of `job` to the engine, or none: the first refusal takes the others back.

    Raises:
        InvalidRequest: it has more sequences than the server ever takes, so that coming back would not help.
        Overloaded, NotReady, ContextLengthExceeded: as the engine's client refuses.
        RateLimited: its key has had its tokens of this minute.
    """
    _check_num_sequences(job, context.settings.max_queued_requests)
    reservation = _reserve(context, job, account.key)
    salt = _cache_salt(job, account.key) if context.settings.prefix_cache_per_key else job.cache_salt
    choices: list[Choice] = []
    stops = StopStrings(job.stops)
    try:
        for prompt in job.prompts:
            for choice_index in range(job.n):
                index = len(choices)
                events = context.engine.generate(
                    GenerateRequest(
                        f"{job.request_id}-{index}",
                        prompt.token_ids,
                        prompt.sampling,
                        choice_index,
                        num_scored_tokens=prompt.num_scored_tokens,
                        priority=job.priority,
                        cache_salt=salt,
                    )
                )
                choices.append(Choice(index, events, _text_stream(context, job, prompt, stops), account))
    except AntiphonError:
        for choice in choices:
            context.engine.abort(choice.events.request_id)
        reservation.settle(0)
        raise
    account.accept()
    cap = context.settings.max_unread_tokens
    return Generation(choices, job.prompts, account, reservation, max_unread_tokens=cap)


def _cache_salt(job: Job, key: str) -> str:
    """The request's own salt beside its key's name, which no salt can imitate; empty where there is neither."""
    return f"{key}\0{job.cache_salt}" if key else job.cache_salt


def _reserve(context: Context, job: Job, key: str) -> Reservation:
    prompt = sum(len(prompt.token_ids) for prompt in job.prompts)
    answer = sum(prompt.sampling.max_tokens for prompt in job.prompts) * job.n
    return context.rates.reserve(key, prompt, answer)


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


def _text_stream(context: Context, job: Job, prompt: Prompt, stops: StopStrings) -> TextStream:
    return context.model.text.stream(
        stop=stops,
        starts_in_thought=prompt.starts_in_thought,
        thinks=None if job.splits_thought else False,
        min_tokens=prompt.sampling.min_tokens,
        tools=job.tools,
    )

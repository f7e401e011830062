"""An accepted request while it is generated: turns the tokens that come from the engine into pieces of text.

Owns the choices of one request: their token streams, text and accounting. Leaving the `async with` block aborts
sequences that are still running. The request ends exactly once in the metrics. Waiting tokens are handed over together,
so a slow reader gets fewer, larger chunks. This module does not know JSON, SSE or the endpoint; `submission` starts
generations.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from types import TracebackType

from antiphon.api.choice import Choice
from antiphon.api.degrading import RequestLoad
from antiphon.api.job import Prompt
from antiphon.api.pieces import Piece, Progress, Tally, Times
from antiphon.api.progress import PromptProgress
from antiphon.api.shapes import Degraded
from antiphon.errors import AntiphonError, Overloaded, SlowReader
from antiphon.metrics import Outcome, RequestAccount, error_code
from antiphon.rates import Reservation
from antiphon.request import RequestProgress, TokenEvent
from antiphon.tracing import GenerationTrace, Stages
from antiphon.tracing.attributes import ENGINE

_BEGUN_EVERY = 0.1  # seconds between two looks whether a request has begun whose time is up


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
        timeout: float | None = None,
        load: RequestLoad | None = None,
        degraded: Degraded | None = None,
        system_fingerprint: str = "",
    ) -> None:
        """Create it.

        Args:
            choices: the choices, in order.
            prompts: what they continue; each has the same number of choices.
            account: counts the request.
            reservation: of tokens of the API key's rate.
            max_unread_tokens: of one choice, waiting for a slow reader.
            timeout: seconds after which its choices end with what they have.
            load: records how the request ends.
            degraded: the limits that were lowered because of the load.
            system_fingerprint: of the engines, before one of them has computed a token.
        """
        self.degraded = degraded
        self._first_fingerprint = system_fingerprint
        self._load = load
        self._choices = choices
        self._prompts = prompts
        self._account = account
        self._reservation = reservation or Reservation()
        self.max_unread_tokens = max_unread_tokens  # of one choice, waiting for a slow reader
        self._is_closed = False
        self._accepted_at = time.monotonic()
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._failure: Exception | None = None
        self._progress = PromptProgress([len(prompt.token_ids) for prompt in prompts])

    async def __aenter__(self) -> Generation:
        for choice in self._choices:
            choice.events.listen(partial(self._hear, choice), partial(self._hear_progress, choice))
        if self._timeout is not None:
            left = self._accepted_at + self._timeout - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(left, self._time_out)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        async for item in self.with_progress():
            if isinstance(item, Piece):
                yield item

    async def with_progress(self) -> AsyncIterator[Piece | Progress]:
        """The pieces, and before them how far the request is, whenever that changes, if its job reports progress.

        A reader who is slow gets the latest progress only. With several prompts, pieces of one may come before the
        last progress of another.
        """
        running = len(self._choices)
        while running:
            await self._news.wait()
            self._news.clear()
            failure = self._failure  # read now: pieces that came before it are sent first
            while (progress := self._progress.take(self._begun_at)) is not None:  # more may come while one is sent
                yield progress
            for choice in self._choices:
                if (piece := choice.take()) is not None:
                    running -= piece.finish_reason is not None
                    yield piece
            if failure is not None:
                raise failure

    @property
    def tally(self) -> Tally:
        """The tokens so far; complete after the iteration. A prompt shared by several choices counts once."""
        n = len(self._choices) // len(self._prompts)
        return Tally(
            prompt=sum(len(prompt.token_ids) for prompt in self._prompts),
            cached=sum(choice.num_cached_tokens for choice in self._choices[::n]),
            completion=sum(choice.num_tokens for choice in self._choices),
            reasoning=sum(choice.num_reasoning_tokens for choice in self._choices),
            drafted=sum(choice.num_drafted_tokens for choice in self._choices),
            accepted=sum(choice.num_accepted_tokens for choice in self._choices),
        )

    @property
    def system_fingerprint(self) -> str:
        """Of the engine that computed the latest tokens; empty if it has none."""
        fingerprints = (choice.events.system_fingerprint for choice in self._choices)
        return next((each for each in fingerprints if each is not None), self._first_fingerprint)

    @property
    def is_inexact(self) -> bool:
        """Whether a choice continued on an engine with other arithmetic than the one before."""
        return any(choice.events.is_inexact for choice in self._choices)

    @property
    def is_over(self) -> bool:
        """Whether every choice has ended and been read to its end."""
        return all(choice.finished and not choice.has_news for choice in self._choices)

    @property
    def times(self) -> Times:
        """The time that each stage has taken so far."""
        answering = [choice for choice in self._choices if choice.num_tokens]
        if not answering:
            return Times(time.monotonic() - self._accepted_at, 0.0, 0.0, 0)
        first, last = min(each.first_token_at for each in answering), max(each.last_token_at for each in answering)
        begun = min(each.events.begun_at or first for each in answering)
        num_decoded = sum(each.num_tokens - 1 for each in answering)
        return Times(max(0.0, begun - self._accepted_at), max(0.0, first - begun), last - first, num_decoded)

    @property
    def _begun_at(self) -> float | None:
        """When the engine began with the first choice, in time.monotonic()."""
        return min((each.events.begun_at for each in self._choices if each.events.begun_at is not None), default=None)

    def _hear_progress(self, choice: Choice, progress: RequestProgress) -> None:
        self._progress.hear(choice.index * len(self._prompts) // len(self._choices), progress)
        self._news.set()

    def _hear(self, choice: Choice, event: TokenEvent | AntiphonError) -> None:
        """Feed events to one choice as they arrive; the iteration takes the text collected meanwhile."""
        try:
            if isinstance(event, Overloaded):
                self._account.count_dropped(event)
                self._note_missed(time.monotonic() - self._accepted_at)
            if isinstance(event, AntiphonError):
                raise event
            choice.receive(event)
            if self._load and choice.num_tokens:
                self._load.note_first_token()
            if not choice.finished and choice.num_unread > self.max_unread_tokens:
                raise SlowReader(f"The answer was aborted: {self.max_unread_tokens} tokens of it were not read.")
        except SlowReader as error:  # the iteration is waiting for the reader, so end the request here
            self._failure = self._failure or error
            self.close()
        except Exception as error:  # raised by the iteration
            self._failure = self._failure or error
            choice.events.close()
        if choice.finished:
            choice.events.close()
        self._news.set()

    @property
    def has_begun(self) -> bool:
        """Whether the engine has begun to compute it."""
        return self._begun_at is not None

    def fail(self, error: AntiphonError) -> None:
        """End it because the server cannot go on with it; `close` counts it as aborted."""
        self._failure = self._failure or error
        self.close()

    def _time_out(self) -> None:
        """End all choices with what they have, once the engine has begun with one; else the engine's client ends it."""
        if not self.has_begun:
            self._timer = asyncio.get_running_loop().call_later(_BEGUN_EVERY, self._time_out)
            return
        running = [choice for choice in self._choices if not choice.finished]
        for choice in running:
            choice.time_out()
        if running:
            self._account.count_missed_deadline()
            self._note_missed(self._timeout or 0.0)

    def _note_missed(self, deadline: float) -> None:
        if self._load:
            self._load.note_missed(deadline)

    def close(self) -> None:
        """Abort running choices and close the account, once."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer:
            self._timer.cancel()
        for choice in self._choices:
            choice.events.close()
        self._close_account()

    def _close_account(self) -> None:
        tally = self.tally
        self._account.count_tokens(tally.prompt, tally.cached, tally.completion, tally.reasoning)
        self._reservation.settle(tally.prompt + tally.completion)
        if self._begun_at is not None:
            self._account.observe_begun(self._begun_at)
        if self._account.trace is not None:
            self._describe(self._account.trace)
        for choice in self._choices:
            if choice.num_tokens > 1:
                self._account.observe_time_per_token(choice.seconds_per_token)
        outcome: Outcome = "aborted"
        if all(choice.finished for choice in self._choices):
            outcome = "finished"
        elif self._failure is not None and not isinstance(self._failure, SlowReader):
            outcome = "failed"
            self._account.error = error_code(self._failure)
        self._account.end(outcome)
        if self._load:
            self._load.note_end(outcome)

    def _describe(self, trace: GenerationTrace) -> None:
        """Give the trace the times of the stages, as `times` has them, and which engines had the choices."""
        answering = [choice for choice in self._choices if choice.num_tokens]
        first = min((each.first_token_at for each in answering), default=None)
        last = max((each.last_token_at for each in answering), default=None)
        begun = min((each.events.begun_at or each.first_token_at for each in answering), default=self._begun_at)
        trace.set_stages(Stages(self._accepted_at, begun, first, last))
        for choice in self._choices:
            for number, change in enumerate(choice.events.engine_changes):
                if number:  # the first engine is an attribute
                    trace.note_engine(change.what, change.engine_id, change.at, choice.index)
                elif not choice.index:
                    trace.set({ENGINE: change.engine_id})

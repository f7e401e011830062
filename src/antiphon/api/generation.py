"""Runs a validated request: sends its sequences to the engine, and turns the tokens that come back into text.

Owns the choices of one request: their token streams, text and accounting. A request's sequences are accepted together,
or none is. Leaving the `async with` block aborts sequences that are still running. The request ends exactly once in the
metrics. Waiting tokens are handed over together, so a slow reader gets fewer, larger chunks. This module does not know
JSON, SSE or the endpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType

from antiphon.api.choice import Choice
from antiphon.api.context import Context
from antiphon.api.degrading import RequestLoad
from antiphon.api.job import Job, Prompt
from antiphon.api.pieces import Piece, Progress, Tally, Times
from antiphon.api.progress import PromptProgress
from antiphon.api.shapes import Degraded
from antiphon.errors import AntiphonError, InvalidRequest, Overloaded, SlowReader
from antiphon.metrics import Outcome, RequestAccount, error_code
from antiphon.rates import Reservation
from antiphon.request import GenerateRequest, RequestProgress, TokenEvent
from antiphon.text import StopStrings, TextStream
from antiphon.tracing import GenerationTrace, Stages
from antiphon.tracing.attributes import ENGINE, Attributes, request_attributes

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
            load: hears how the request fares.
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
        heard = (choice.events.system_fingerprint for choice in self._choices)
        return next((each for each in heard if each is not None), self._first_fingerprint)

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
        heard = [choice for choice in self._choices if choice.num_tokens]
        if not heard:
            return Times(time.monotonic() - self._accepted_at, 0.0, 0.0, 0)
        first, last = min(each.first_token_at for each in heard), max(each.last_token_at for each in heard)
        begun = min(each.events.begun_at or first for each in heard)
        num_decoded = sum(each.num_tokens - 1 for each in heard)
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
        """Tell the trace the times of the stages, as `times` has them, and which engines had the choices."""
        heard = [choice for choice in self._choices if choice.num_tokens]
        first = min((each.first_token_at for each in heard), default=None)
        last = max((each.last_token_at for each in heard), default=None)
        begun = min((each.events.begun_at or each.first_token_at for each in heard), default=self._begun_at)
        trace.set_stages(Stages(self._accepted_at, begun, first, last))
        for choice in self._choices:
            for number, change in enumerate(choice.events.engine_changes):
                if number:  # the first engine is an attribute
                    trace.note_engine(change.what, change.engine_id, change.at, choice.index)
                elif not choice.index:
                    trace.set({ENGINE: change.engine_id})


def start_generation(context: Context, job: Job, account: RequestAccount) -> Generation:
    """Hand all sequences of `job` to the engine, or none: if one is refused, the others are withdrawn.

    Raises:
        InvalidRequest: the request has more sequences than the server ever accepts, so retrying would not help.
        Overloaded, NotReady, ContextLengthExceeded: raised by the engine's client.
        RateLimited: the key has used its tokens of this minute.
    """
    _check_num_sequences(job, context.settings.max_queued_requests)
    reservation = _reserve(context, job, account.key)
    salt = _cache_salt(job, account.key) if context.settings.prefix_cache_per_key else job.cache_salt
    weight = context.fairness_weight
    requests = [
        GenerateRequest(
            f"{job.request_id}-{index * job.n + choice_index}",
            prompt.token_ids,
            prompt.sampling,
            choice_index,
            num_scored_tokens=prompt.num_scored_tokens,
            priority=job.priority,
            service_tier=job.service_tier,
            fairness_id=context.fairness_id,
            fairness_weight=weight,
            cache_salt=salt,
            reports_progress=job.reports_progress and choice_index == 0,  # the others share its prompt
        )
        for index, prompt in enumerate(job.prompts)
        for choice_index in range(job.n)
    ]
    terms = replace(context.deadlines.terms(job), shares_with=context.shares_with)
    try:
        load = context.degrading.begin(job.load)
    except Overloaded:
        reservation.settle(0)
        raise
    try:
        streams = context.engine.generate_all(requests, terms, generation=context.generation)
    except AntiphonError as error:
        reservation.settle(0)
        load.note_refused(error, terms)
        raise
    load.note_accepted(terms, streams[-1].predicted_wait)
    stops = StopStrings(job.stops)
    choices = [
        Choice(index, events, _text_stream(context, job, job.prompts[index // job.n], stops), account)
        for index, events in enumerate(streams)
    ]
    account.accept(streams[-1].predicted_wait)
    if account.trace is not None:
        account.trace.set(_asked(context, job))
        if (times := job.prompts[0].times) is not None:
            account.trace.set_prompt_times(times.begun_at, times.rendered_at, times.encoded_at)
    if job.degraded is not None:
        account.note_degraded(job.degraded.level)
    return Generation(
        choices,
        job.prompts,
        account,
        reservation,
        max_unread_tokens=context.settings.max_unread_tokens,
        timeout=job.timeout,
        load=load,
        degraded=job.degraded,
        system_fingerprint=info.system_fingerprint if (info := context.engine.info_of(context.generation)) else "",
    )


def _asked(context: Context, job: Job) -> Attributes:
    sampling = job.prompts[0].sampling
    num_prompts = len(job.prompts)
    return request_attributes(
        context.model.name,
        job.request_id,
        sampling,
        num_choices=job.n,
        num_prompts=num_prompts,
        is_streamed=job.is_streamed,
    )


def _cache_salt(job: Job, key: str) -> str:
    """The key's name and the request's own salt, joined so that a salt cannot imitate a key; empty without both."""
    return f"{key}\0{job.cache_salt}" if key else job.cache_salt


def _reserve(context: Context, job: Job, key: str) -> Reservation:
    prompt = sum(len(prompt.token_ids) for prompt in job.prompts)
    answer = sum(prompt.sampling.max_tokens for prompt in job.prompts) * job.n
    return context.rates.reserve(key, prompt, answer)


def _check_num_sequences(job: Job, most: int) -> None:
    num_sequences = len(job.prompts) * job.n
    if num_sequences > most:
        # With one choice per prompt, the number of prompts is too large.
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
        continues=prompt.continues,
        thinks=None if job.splits_thought else False,
        min_tokens=prompt.sampling.min_tokens,
        tools=job.tools,
    )

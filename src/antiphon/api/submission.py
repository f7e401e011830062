"""Submits a validated request to the engine: its sequences are accepted together, or none is.

Reserves the tokens of the API key's rate before, and gives them back if the request is refused. What comes back of an
accepted request is a `Generation`. This module does not know JSON, SSE or the endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from antiphon.api.choice import Choice
from antiphon.api.context import Context
from antiphon.api.degrading import RequestLoad
from antiphon.api.generation import Generation
from antiphon.api.job import Job, Prompt
from antiphon.engine.requests.stream import TokenStream
from antiphon.errors import AntiphonError, InvalidRequest
from antiphon.metrics import RequestAccount
from antiphon.rates import Reservation
from antiphon.request import GenerateRequest
from antiphon.text import StopStrings, TextStream
from antiphon.tracing.attributes import Attributes, request_attributes


def start_generation(context: Context, job: Job, account: RequestAccount) -> Generation:
    """Hand all sequences of `job` to the engine, or none: if one is refused, the others are withdrawn.

    Raises:
        InvalidRequest: the request has more sequences than the server ever accepts, so retrying would not help.
        Overloaded, NotReady, ContextLengthExceeded: raised by the engine's client.
        RateLimited: the key has used its tokens of this minute.
    """
    _check_num_sequences(job, context.settings.max_queued_requests)
    reservation = _reserve(context, job, account.key)
    try:
        streams, load = _accepted(context, job, account.key)
    except AntiphonError:
        reservation.settle(0)
        raise
    choices = _choices(context, job, streams, account)
    _note_accepted(context, job, account, streams[-1].predicted_wait)
    info = context.engine.info_of(context.generation)
    return Generation(
        choices,
        job.prompts,
        account,
        reservation,
        max_unread_tokens=context.settings.max_unread_tokens,
        timeout=job.timeout,
        load=load,
        degraded=job.degraded,
        system_fingerprint=info.system_fingerprint if info else "",
    )


def _accepted(context: Context, job: Job, key: str) -> tuple[list[TokenStream], RequestLoad]:
    """The streams of all sequences, in order, and the object that records how they end. Raises why they are refused."""
    terms = replace(context.deadlines.terms(job), shares_with=context.shares_with)
    load = context.degrading.begin(job.load)
    try:
        streams = context.engine.generate_all(_sequences(context, job, key), terms, generation=context.generation)
    except AntiphonError as error:
        load.note_refused(error, terms)
        raise
    load.note_accepted(terms, streams[-1].predicted_wait)
    return streams, load


def _sequences(context: Context, job: Job, key: str) -> list[GenerateRequest]:
    """What the engine is asked for: `job.n` sequences for each prompt."""
    salt = _cache_salt(job, key) if context.settings.prefix_cache_per_key else job.cache_salt
    return [
        GenerateRequest(
            f"{job.request_id}-{index * job.n + choice_index}",
            prompt.token_ids,
            prompt.sampling,
            choice_index,
            num_scored_tokens=prompt.num_scored_tokens,
            priority=job.priority,
            service_tier=job.service_tier,
            fairness_id=context.fairness_id,
            fairness_weight=context.fairness_weight,
            cache_salt=salt,
            reports_progress=job.reports_progress and choice_index == 0,  # the others share its prompt
        )
        for index, prompt in enumerate(job.prompts)
        for choice_index in range(job.n)
    ]


def _choices(context: Context, job: Job, streams: Sequence[TokenStream], account: RequestAccount) -> list[Choice]:
    stops = StopStrings(job.stops)
    return [
        Choice(index, events, _text_stream(context, job, job.prompts[index // job.n], stops), account)
        for index, events in enumerate(streams)
    ]


def _note_accepted(context: Context, job: Job, account: RequestAccount, predicted_wait: float | None) -> None:
    account.accept(predicted_wait)
    if account.trace is not None:
        account.trace.set(_asked(context, job))
        if (times := job.prompts[0].times) is not None:
            account.trace.set_prompt_times(times.begun_at, times.rendered_at, times.encoded_at)
    if job.degraded is not None:
        account.note_degraded(job.degraded.level)


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

"""One call from start to end: the fields of a request in, its answer out, whole or streamed.

Owns the step from Python values to the functions that also serve HTTP and do the work: the same schemas validate, the
same rules fill in defaults, the same streams turn tokens into text. It promises that of a list of calls, however long,
a bounded number is with the engine at a time, and that one that fails ends the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.chat.understand import understand as understand_chat
from antiphon.api.completions.answer import text_of
from antiphon.api.completions.request import CompletionRequest
from antiphon.api.completions.understand import understand as understand_completion
from antiphon.api.context import Context
from antiphon.api.generation import Generation
from antiphon.api.submission import start_generation
from antiphon.api.validation import validate
from antiphon.api.vote import vote
from antiphon.errors import AntiphonError, InvalidRequest
from antiphon.offline.answers import (
    Answer,
    Delta,
    GrowingChoice,
    GrowingToolCalls,
    Vote,
    prompt_logprobs,
    token_logprobs,
    usage_of,
)

_STREAM_FIELDS = ("stream", "stream_options")  # the method that is called decides this


Endpoint = Literal["chat", "completions"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its endpoint and its body."""

    endpoint: Endpoint
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A call that the engine has accepted."""

    generation: Generation
    num_choices: int
    prompt_token_ids: list[int]
    with_logprobs: bool
    echo: str | None  # the prompt's text, if it is to be returned
    with_vote: bool


async def answer(context: Context, call: Call) -> Answer:
    """Make one call."""
    begun = await _begin(context, call)
    choices = [GrowingChoice() for _ in range(begun.num_choices)]
    async with begun.generation as generation:
        async for piece in generation:
            choices[piece.index].push(piece)
    tokenizer = context.model.text.tokenizer
    scored, echo = begun.with_logprobs, begun.echo
    whole = tuple(choice.whole(tokenizer, echo=echo or "", with_logprobs=scored) for choice in choices)
    counted = vote(choice.text for choice in whole) if begun.with_vote else None
    return Answer(
        choices=whole,
        usage=usage_of(generation.tally),
        prompt_token_ids=tuple(begun.prompt_token_ids),
        prompt_logprobs=prompt_logprobs(tokenizer, begun.prompt_token_ids, choices[0]) if scored and echo else None,
        vote=None if counted is None else Vote(counted.answer, counted.count, counted.counts),
    )


async def answers(context: Context, calls: Sequence[Call], at_once: int) -> list[Answer]:
    """Make all calls, at most `at_once` at a time; the first that fails ends the others, with a note on its index."""
    found: dict[int, Answer] = {}
    waiting = iter(enumerate(calls))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(calls))):
                group.create_task(_answer_each(context, waiting, found))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [found[index] for index in range(len(calls))]


async def deltas(context: Context, call: Call) -> AsyncIterator[Delta]:
    """Make one call and yield what is new as it comes. Closing the iterator ends the call."""
    if call.fields.get("echo"):
        raise InvalidRequest("'echo' is not supported in streams; leave it out.", param="echo")
    begun = await _begin(context, call)
    tokenizer = context.model.text.tokenizer
    tool_calls = [GrowingToolCalls() for _ in range(begun.num_choices)]
    left = begun.num_choices
    async with begun.generation as generation:
        async for piece in generation:
            tool_calls[piece.index].push(piece)
            ends = piece.finish_reason is not None
            left -= ends
            yield Delta(
                index=piece.index,
                text=piece.content,
                reasoning=piece.reasoning,
                token_ids=tuple(piece.token_ids),
                logprobs=token_logprobs(tokenizer, piece.scored) if begun.with_logprobs else None,
                finish_reason=piece.finish_reason,
                tool_calls=tool_calls[piece.index].whole() if ends else (),
                thought_closed=piece.thought_closed,
                usage=None if left else usage_of(generation.tally),
            )


async def _answer_each(context: Context, calls: Iterator[tuple[int, Call]], found: dict[int, Answer]) -> None:
    for index, call in calls:
        try:
            found[index] = await answer(context, call)
        except AntiphonError as error:
            error.add_note(f"(item {index} of the list)")
            raise


async def _begin(context: Context, call: Call) -> _Begun:
    """Validate a call as its endpoint would, and start it."""
    fields = _sent(call.fields)
    with context.metrics.request(call.endpoint) as account:
        if call.endpoint == "chat":
            conversation = validate(ChatCompletionRequest, fields)
            job = await understand_chat(context, conversation)
            scored, echo, votes = conversation.num_logprobs is not None, None, bool(conversation.vote)
        else:
            text = validate(CompletionRequest, fields)
            job = await understand_completion(context, text)
            scored, votes = text.num_logprobs is not None, False
            echo = text_of(context, fields["prompt"]) if text.echo else None
        return _Begun(start_generation(context, job, account), job.n, job.prompts[0].token_ids, scored, echo, votes)


def _sent(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request body for these fields."""
    if fields.get("return_progress"):
        raise InvalidRequest("'return_progress' is only supported over HTTP; leave it out.", param="return_progress")
    for name in _STREAM_FIELDS:
        if name in fields:
            raise InvalidRequest(f"'{name}' is not a field of a call; use Engine.stream or stream_chat.", param=name)
    try:
        return {name: _plain(value) for name, value in fields.items()}
    except RecursionError:
        raise InvalidRequest("The fields are nested too deeply.") from None


def _plain(value: object) -> object:
    """A value as JSON has it: tuples become lists, and keys, such as the ids in `logit_bias`, strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value

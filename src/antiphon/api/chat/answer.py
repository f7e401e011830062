"""Writes chat completions from pieces of text, whole or streamed.

A reasoning model's thought is sent as both `reasoning_content` and `reasoning`, since clients know one or the other.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, UnsetType

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.chat.shapes import (
    CalledFunction,
    CalledFunctionDelta,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    MadeCall,
    MadeCallDelta,
)
from antiphon.api.chat.understand import understand
from antiphon.api.context import Context
from antiphon.api.events import COMMENT, DONE, MEDIA_TYPE, error_event, event
from antiphon.api.exchange import Exchange
from antiphon.api.generation import Generation
from antiphon.api.job import Job
from antiphon.api.logprobs import token_logprob
from antiphon.api.pieces import Piece, Progress, ScoredToken, ToolCallDelta
from antiphon.api.progress import prompt_progress_of, queue_of
from antiphon.api.shapes import Timings, Usage, encoder
from antiphon.api.submission import start_generation
from antiphon.api.usage import degraded_of, fingerprint_of, inexact_of, timings_of, usage_of
from antiphon.api.vote import vote
from antiphon.errors import AntiphonError
from antiphon.metrics import RequestAccount


class ChatAnswer:
    """One request's answer."""

    media_type, last, keep_alive = MEDIA_TYPE, DONE, COMMENT

    def __init__(self, job: Job, context: Context, body: ChatCompletionRequest) -> None:
        self._id = job.request_id
        self._created = int(time.time())
        self._model = context.model.name
        self._thinks = context.model.text.thinks
        self._tokenizer = context.model.text.tokenizer
        self._threads = context.threads
        self._n = body.n or 1
        self._with_logprobs = body.num_logprobs is not None
        self._include_usage = body.include_usage
        self._continuous_usage = body.continuous_usage
        self._prompt_token_ids = job.prompts[0].token_ids if body.return_token_ids else UNSET
        self._votes = bool(body.vote)
        self._service_tier = job.service_tier.value if body.service_tier is not None else UNSET

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON object."""
        choices = [_Whole() for _ in range(self._n)]
        async for piece in generation:
            choice = choices[piece.index]
            choice.content.append(piece.content)
            choice.reasoning.append(piece.reasoning)
            choice.token_ids += (*piece.token_ids, *piece.end_token_ids)
            choice.scored += piece.scored
            for delta in piece.tool_calls:
                _add_call(choice.tool_calls, delta)
            choice.finish_reason = piece.finish_reason or choice.finish_reason
            choice.thought_closed = piece.thought_closed or choice.thought_closed
            choice.ended_by = piece.ended_by or choice.ended_by
        num_scored = sum(len(choice.scored) for choice in choices)
        return await self._threads.if_many(num_scored, self._encode_whole, choices, generation)

    def _encode_whole(self, choices: list[_Whole], generation: Generation) -> bytes:
        answer = ChatCompletion(
            self._id,
            self._created,
            self._model,
            [self._choice(index, choice) for index, choice in enumerate(choices)],
            usage_of(generation.tally),
            timings_of(generation),
            vote("".join(choice.content) for choice in choices) if self._votes else UNSET,
            self._prompt_token_ids,
        )
        answer.service_tier, answer.degraded = self._service_tier, degraded_of(generation)
        answer.system_fingerprint, answer.inexact_continuation = fingerprint_of(generation), inexact_of(generation)
        return encoder.encode(answer)

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as events, without the closing [DONE]."""
        for index in range(self._n):
            begin = ChatChunkChoice(index, ChatDelta(role="assistant", content=""), None, None)
            yield self._chunk(generation, begin, prompt_token_ids=self._prompt_token_ids if index == 0 else UNSET)
        async for item in generation.with_progress():
            if isinstance(item, Progress):
                yield self._event(generation, [], self._usage_so_far(generation), progress=item)
                continue
            for choice in self._chunk_choices(item):
                is_last = choice.finish_reason is not None and generation.is_over and not self._include_usage
                if is_last:
                    yield self._last([choice], self._usage_so_far(generation), generation)
                else:
                    yield self._chunk(generation, choice)
        if self._include_usage:
            yield self._last([], usage_of(generation.tally), generation)

    def failed(self, error: AntiphonError) -> bytes:
        """The event that ends a failed stream."""
        return error_event(error)

    def _choice(self, index: int, choice: _Whole) -> ChatChoice:
        thought: str | UnsetType = "".join(choice.reasoning) if self._thinks else UNSET
        content = "".join(choice.content)
        message = ChatMessage(
            content=None if choice.tool_calls and not content else content,
            reasoning_content=thought,
            reasoning=thought,
            tool_calls=choice.tool_calls or UNSET,
        )
        logprobs, token_ids = self._logprobs(choice.scored), self._token_ids(choice.token_ids)
        return ChatChoice(
            index, message, logprobs, choice.finish_reason, choice.thought_closed, token_ids, choice.ended_by
        )

    def _chunk_choices(self, piece: Piece) -> Iterator[ChatChunkChoice]:
        """A chunk for the piece's text, one for each step of its calls, and one that says how the choice ended."""
        thought: str | UnsetType = piece.reasoning or UNSET
        deltas = [ChatDelta(content=piece.content or UNSET, reasoning_content=thought, reasoning=thought)]
        calls = [ChatDelta(tool_calls=[_call_chunk(delta)]) for delta in piece.tool_calls]
        deltas = [*deltas, *calls] if piece.content or piece.reasoning or not calls else calls
        logprobs = self._logprobs(piece.scored) if piece.scored else None
        if piece.content or piece.reasoning or piece.tool_calls or piece.token_ids or piece.thought_closed:
            for delta in deltas[:-1]:
                yield ChatChunkChoice(piece.index, delta, None, None)
            closed, token_ids = piece.thought_closed or UNSET, self._token_ids(piece.token_ids)
            yield ChatChunkChoice(piece.index, deltas[-1], logprobs, None, closed, token_ids)
        if piece.finish_reason is not None:
            token_ids = self._token_ids(piece.end_token_ids)
            ended_by = piece.ended_by or UNSET
            yield ChatChunkChoice(
                piece.index, ChatDelta(), None, piece.finish_reason, token_ids=token_ids, ended_by=ended_by
            )

    def _token_ids(self, token_ids: list[int]) -> list[int] | UnsetType:
        return UNSET if self._prompt_token_ids is UNSET else token_ids

    def _chunk(
        self,
        generation: Generation,
        choice: ChatChunkChoice,
        prompt_token_ids: list[int] | UnsetType = UNSET,
    ) -> bytes:
        return self._event(generation, [choice], self._usage_so_far(generation), prompt_token_ids=prompt_token_ids)

    def _last(self, choices: list[ChatChunkChoice], usage: Usage | UnsetType | None, generation: Generation) -> bytes:
        """The last chunk of a stream."""
        return self._event(generation, choices, usage, timings_of(generation), is_last=True)

    def _usage_so_far(self, generation: Generation) -> Usage | UnsetType | None:
        """The `usage` of a chunk that is not the last."""
        if self._continuous_usage:
            return usage_of(generation.tally)
        return None if self._include_usage else UNSET

    def _event(
        self,
        generation: Generation,
        choices: list[ChatChunkChoice],
        usage: Usage | UnsetType | None,
        timings: Timings | UnsetType = UNSET,
        prompt_token_ids: list[int] | UnsetType = UNSET,
        progress: Progress | None = None,
        is_last: bool = False,
    ) -> bytes:
        chunk = ChatCompletionChunk(self._id, self._created, self._model, choices, usage, timings, prompt_token_ids)
        chunk.service_tier, chunk.system_fingerprint = self._service_tier, fingerprint_of(generation)
        if is_last:
            chunk.degraded, chunk.inexact_continuation = degraded_of(generation), inexact_of(generation)
        chunk.queue, chunk.prompt_progress = queue_of(progress), prompt_progress_of(progress)
        return event(encoder.encode(chunk))

    def _logprobs(self, scored: list[ScoredToken]) -> ChatLogprobs | None:
        if not self._with_logprobs:
            return None
        return ChatLogprobs([token_logprob(self._tokenizer, each) for each in scored])


@dataclass(slots=True)
class _Whole:
    """One choice while it is generated."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    tool_calls: list[MadeCall] = field(default_factory=list)
    finish_reason: str = ""
    thought_closed: str | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET


def _add_call(calls: list[MadeCall], delta: ToolCallDelta) -> None:
    if delta.id is not None:
        calls.append(MadeCall(delta.id, CalledFunction(delta.name or "", "")))
    calls[-1].function.arguments += delta.arguments


def _call_chunk(delta: ToolCallDelta) -> MadeCallDelta:
    """The first delta of a call contains its name, the others its arguments."""
    named = delta.id is not None
    return MadeCallDelta(
        delta.index,
        delta.id if delta.id is not None else UNSET,
        "function" if named else UNSET,
        CalledFunctionDelta(delta.name if delta.name is not None else UNSET, delta.arguments),
    )


async def begin(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange:
    """Validate a request and hand its job to the engine.

    Raises:
        AntiphonError: the request is refused. The engine did not get it.
    """
    context.facts()
    body = await context.validated(ChatCompletionRequest, fields)
    job = await understand(context, body)
    generation = start_generation(context, job, account)
    return Exchange(generation, ChatAnswer(job, context, body), bool(body.stream), body.ignored)

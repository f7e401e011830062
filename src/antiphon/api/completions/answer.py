"""Writes plain completions from pieces of text, whole or streamed. Log-probabilities are parallel lists."""

from __future__ import annotations

import time
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, UnsetType

from antiphon.api.completions.request import CompletionRequest
from antiphon.api.completions.shapes import Completion, CompletionChoice, CompletionLogprobs
from antiphon.api.completions.understand import prompts_of, understand
from antiphon.api.context import Context
from antiphon.api.events import COMMENT, DONE, MEDIA_TYPE, error_event, event
from antiphon.api.exchange import Exchange
from antiphon.api.generation import Generation
from antiphon.api.job import Job
from antiphon.api.logprobs import finite, rivals_by_text, spelled
from antiphon.api.pieces import Piece, Progress, ScoredToken
from antiphon.api.progress import prompt_progress_of, queue_of
from antiphon.api.shapes import Usage, encoder
from antiphon.api.submission import start_generation
from antiphon.api.threads import is_long
from antiphon.api.usage import degraded_of, fingerprint_of, inexact_of, timings_of, usage_of
from antiphon.errors import AntiphonError
from antiphon.metrics import RequestAccount
from antiphon.request import (
    TokenLogprobs,
)
from antiphon.text import Tokenizer


class CompletionAnswer:
    """One request's answer."""

    media_type, last, keep_alive = MEDIA_TYPE, DONE, COMMENT

    def __init__(self, job: Job, context: Context, body: CompletionRequest, echoes: list[str] | None) -> None:
        """`echoes`: the texts of the prompts, if they are echoed."""
        self._id = job.request_id
        self._created = int(time.time())
        self._model = context.model.name
        self._tokenizer = context.model.text.tokenizer
        self._threads = context.threads
        self._num_logprobs = body.num_logprobs
        self._include_usage = body.include_usage
        self._continuous_usage = body.continuous_usage
        self._return_token_ids = bool(body.return_token_ids)
        self._service_tier = job.service_tier.value if body.service_tier is not None else UNSET
        # What each choice continues, and that as text.
        self._prompts = [prompt.token_ids for prompt in job.prompts for _ in range(job.n)]
        self._echoes = [echo for echo in echoes for _ in range(job.n)] if echoes else None
        # Where the text of each choice's next scored token begins.
        self._offsets = [_TextOffsets(self._tokenizer) for _ in self._prompts]

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON object."""
        choices = [_Whole() for _ in self._prompts]
        async for piece in generation:
            choice = choices[piece.index]
            choice.text.append(piece.content)
            choice.token_ids += (*piece.token_ids, *piece.end_token_ids)
            choice.prompt_scores += piece.prompt_scores
            choice.scored += (*piece.scored, *piece.end_scored)
            choice.finish_reason = piece.finish_reason
            choice.ended_by = piece.ended_by
        num_scored = sum(len(choice.prompt_scores) + len(choice.scored) for choice in choices)
        return await self._threads.if_many(num_scored, self._encode_whole, choices, generation)

    def _encode_whole(self, choices: list[_Whole], generation: Generation) -> bytes:
        answer = [
            self._choice(
                Piece(
                    index,
                    "".join(choice.text),
                    token_ids=choice.token_ids,
                    prompt_scores=choice.prompt_scores,
                    scored=choice.scored,
                    finish_reason=choice.finish_reason,
                    ended_by=choice.ended_by,
                ),
                is_first=True,
            )
            for index, choice in enumerate(choices)
        ]
        return self._encode(generation, answer, usage_of(generation.tally), is_last=True)

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as events, without the closing [DONE]."""
        usage: Usage | UnsetType | None = None if self._include_usage else UNSET
        begun: set[int] = set()
        async for piece in generation.with_progress():
            if isinstance(piece, Progress):
                so_far = usage_of(generation.tally) if self._continuous_usage else usage
                yield event(self._encode(generation, [], so_far, progress=piece))
                continue
            num_scored = len(piece.prompt_scores) + len(piece.scored)
            choice = await self._threads.if_many(num_scored, self._choice, piece, is_first=piece.index not in begun)
            begun.add(piece.index)
            is_last = generation.is_over and not self._include_usage
            so_far = usage_of(generation.tally) if self._continuous_usage else usage
            yield event(self._encode(generation, [choice], so_far, is_last=is_last))
        if self._include_usage:
            yield event(self._encode(generation, [], usage_of(generation.tally), is_last=True))

    def failed(self, error: AntiphonError) -> bytes:
        """The event that ends a failed stream."""
        return error_event(error)

    def _choice(self, piece: Piece, *, is_first: bool) -> CompletionChoice:
        """A piece of a choice, or all of it. The first piece includes the prompt's ids and log-probabilities."""
        text, index = piece.content, piece.index
        echo = self._echoes[index] if is_first and self._echoes else ""
        scored = [*piece.scored, *piece.end_scored]
        logprobs = self._logprobs(piece, scored, echo) if scored or is_first else None
        choice = CompletionChoice(index, echo + text, logprobs, piece.finish_reason, ended_by=piece.ended_by or UNSET)
        if self._return_token_ids:
            choice.token_ids = [*piece.token_ids, *piece.end_token_ids]
            choice.prompt_token_ids = self._prompts[index] if is_first else UNSET
        return choice

    def _encode(
        self,
        generation: Generation,
        choices: list[CompletionChoice],
        usage: Usage | UnsetType | None,
        *,
        is_last: bool = False,
        progress: Progress | None = None,
    ) -> bytes:
        """A chunk, or all of an answer."""
        completion = Completion(self._id, self._created, self._model, choices, usage, service_tier=self._service_tier)
        completion.queue, completion.prompt_progress = queue_of(progress), prompt_progress_of(progress)
        completion.system_fingerprint = fingerprint_of(generation)
        if is_last:
            completion.timings, completion.degraded = timings_of(generation), degraded_of(generation)
            completion.inexact_continuation = inexact_of(generation)
        return encoder.encode(completion)

    def _logprobs(self, piece: Piece, scored: list[ScoredToken], echo: str) -> CompletionLogprobs | None:
        """An entry for each token of the echoed prompt and each drawn token, including one that ended the choice."""
        if self._num_logprobs is None:
            return None
        logprobs = CompletionLogprobs([], [], [] if self._num_logprobs else None, [])
        offsets = self._offsets[piece.index]
        if echo:
            prompt = self._prompts[piece.index]
            logprobs.text_offset += offsets.of_prompt(prompt, echo)
            for token_id, scores in zip(prompt, [None, *piece.prompt_scores], strict=True):
                self._add_score(logprobs, token_id, scores)
        for each in scored:
            logprobs.text_offset.append(offsets.next(each.token_id))
            self._add_score(logprobs, each.token_id, each.scores)
        return logprobs

    def _add_score(self, logprobs: CompletionLogprobs, token_id: int, scores: TokenLogprobs | None) -> None:
        token = spelled(self._tokenizer, token_id)
        logprobs.tokens.append(token)
        logprobs.token_logprobs.append(finite(scores.logprob) if scores else None)
        if logprobs.top_logprobs is not None:
            logprobs.top_logprobs.append(rivals_by_text(self._tokenizer, token_id, scores) if scores else None)


@dataclass(slots=True)
class _Whole:
    """One choice while it is generated."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    prompt_scores: list[TokenLogprobs] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    finish_reason: str | None = None
    ended_by: str | None = None


class _TextOffsets:
    """Where each token's text begins in a choice's `text`, in characters.

    A token that is only a part of a character begins where the character does.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._length = 0

    def of_prompt(self, token_ids: list[int], text: str) -> list[int]:
        """The offsets of a prompt's tokens in its `text`, which may lack a prefix added by the tokenizer."""
        offsets = [self._push(self._tokenizer.id_to_bytes(token_id)) for token_id in token_ids]
        self._decoder.reset()
        lacking = max(0, self._length - len(text))
        self._length = len(text)
        return [max(0, offset - lacking) for offset in offsets]

    def next(self, token_id: int) -> int:
        """The offset of the next generated token, which has no text if it is a control token."""
        return self._push(self._tokenizer.shown_bytes(token_id))

    def _push(self, spelled: bytes) -> int:
        offset = self._length
        self._length += len(self._decoder.decode(spelled))
        return offset


def text_of(context: Context, prompt: str | list[int]) -> str:
    """A prompt as text."""
    if isinstance(prompt, str):
        return prompt
    return context.model.text.tokenizer.text_of(prompt)


async def begin(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange:
    """Validate a request and hand its job to the engine.

    Raises:
        AntiphonError: the request is refused. The engine did not get it.
    """
    context.facts()
    body = await context.validated(CompletionRequest, fields)
    job = await understand(context, body)
    echoes = None
    if body.echo:
        echoes = await context.if_long(is_long(body.prompt), _echoes_of, context, body)
    generation = start_generation(context, job, account)
    return Exchange(generation, CompletionAnswer(job, context, body, echoes), bool(body.stream), body.ignored)


def _echoes_of(context: Context, body: CompletionRequest) -> list[str]:
    return [text_of(context, prompt) for prompt in prompts_of(body)]

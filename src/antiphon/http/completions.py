"""`POST /v1/completions`: plain text or token ids in, their continuation out, whole or streamed.

Owns the shapes of OpenAI's older endpoint: a list of prompts is one request with the choices of all of them in order,
and log-probabilities come as parallel lists. It promises, as chat does, that everything wrong with a request is found
before the engine hears of it. Text is not split here: a thought stays in the text as the model wrote it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType

from antiphon.errors import InvalidRequest
from antiphon.http.errors import validate
from antiphon.http.front import Front, front_of
from antiphon.http.generation import Generation, Job, Piece, Prompt, ScoredToken, start_generation
from antiphon.http.limits import MAX_PROMPTS, MAX_SEQUENCES, read_json_object
from antiphon.http.openapi import json_body
from antiphon.http.responses import Completion, CompletionChoice, CompletionLogprobs, Timings, Usage, encoder
from antiphon.http.sampling import check_prompt_length, check_token_ids, sampling_params
from antiphon.http.schemas import CompletionRequest
from antiphon.http.sse import EventStream, answer_or_disconnect, event
from antiphon.http.structured import checked_grammar
from antiphon.http.usage import finite, new_id, timings_of, usage_of
from antiphon.request import TokenLogprobs
from antiphon.text import Tokenizer

DEFAULT_MAX_TOKENS = 16  # OpenAI's, for this endpoint alone

router = APIRouter()


@router.post("/v1/completions", openapi_extra=json_body(CompletionRequest))
async def create_completion(request: Request) -> Response:
    """Continue a text."""
    front = front_of(request)
    with front.account(request, "completions") as account:
        front.facts()
        body = validate(CompletionRequest, await read_json_object(request, front.settings.max_body_bytes))
        job = await understand(front, body)
        generation = start_generation(front, job, account)
    writer = _Writer(job, front, body)
    if body.stream:
        return EventStream(generation, writer.stream(generation))
    return await answer_or_disconnect(request, generation, writer.whole(generation))


async def understand(front: Front, body: CompletionRequest) -> Job:
    """The request in the engine's terms, or the reason why it cannot be served."""
    front.check_model(body.model)
    facts, priority = front.facts(), front.priority(body.priority)
    n = body.n or 1
    grammar = await checked_grammar(body, front.model.text.grammars)
    prompts = []
    for token_ids in await _prompts(front, body, n, facts.context_length):
        check_token_ids(token_ids, facts.vocab_size, "prompt")
        check_prompt_length(len(token_ids), facts.context_length, "prompt")
        sampling = sampling_params(
            body,
            facts,
            front.model.generation_defaults,
            num_prompt_tokens=len(token_ids),
            default_max_tokens=DEFAULT_MAX_TOKENS,
            grammar=grammar,
        )
        prompts.append(Prompt(token_ids, sampling, num_scored_tokens=_num_scored_tokens(body, token_ids)))
    return Job(new_id("cmpl"), prompts, body.stops, n, splits_thought=False, priority=priority)


def _num_scored_tokens(body: CompletionRequest, token_ids: list[int]) -> int:
    """An echoed prompt is scored where log-probabilities are wanted, all of it but its first token, which nothing
    precedes. Where nothing is to be generated the engine still needs something to do.
    """
    if body.echo and body.logprobs is not None:
        return len(token_ids) - 1
    return min(1, len(token_ids) - 1) if body.max_tokens == 0 else 0


def _several(body: CompletionRequest) -> list[str] | list[list[int]]:
    """The prompts of a request, whichever way they were sent."""
    sent = body.prompt
    single = isinstance(sent, str) or (sent and isinstance(sent[0], int))
    return [sent] if single else sent  # type: ignore[return-value]  # of one kind, as the schema made sure


async def _prompts(front: Front, body: CompletionRequest, n: int, limit: int) -> list[list[int]]:
    """The token ids of every prompt; one that is certain to have `limit` of them is refused uncounted."""
    several = _several(body)
    if not several or not all(several):
        raise InvalidRequest("'prompt' is empty; there must be at least one token to continue.", param="prompt")
    if len(several) > MAX_PROMPTS or len(several) * n > MAX_SEQUENCES:
        raise InvalidRequest(
            f"'prompt' has {len(several)} prompts and 'n' is {n}; the most is {MAX_PROMPTS} prompts and "
            f"{MAX_SEQUENCES} choices in one request.",
            param="prompt",
        )
    return [await front.encode(prompt, limit=limit) if isinstance(prompt, str) else list(prompt) for prompt in several]


@dataclass(slots=True)
class _Whole:
    """One choice as it grows."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    prompt_scores: list[TokenLogprobs] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    finish_reason: str | None = None


class _Writer:
    """Writes one request's answer."""

    def __init__(self, job: Job, front: Front, body: CompletionRequest) -> None:
        self._id = job.request_id
        self._created = int(time.time())
        self._model = front.model.name
        self._tokenizer = front.model.text.tokenizer
        self._num_logprobs = body.num_logprobs
        self._include_usage = body.include_usage
        self._continuous_usage = body.continuous_usage
        self._return_token_ids = bool(body.return_token_ids)
        # What each choice continues, and that as text where it is to be echoed.
        self._prompts = [prompt.token_ids for prompt in job.prompts for _ in range(job.n)]
        echoes = [text_of(front, prompt) for prompt in _several(body)] if body.echo else None
        self._echoes = [echo for echo in echoes for _ in range(job.n)] if echoes else None
        self._offsets = [0] * len(self._prompts)  # characters of each choice's scored tokens so far

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON object."""
        choices = [_Whole() for _ in self._prompts]
        async for piece in generation:
            choice = choices[piece.index]
            choice.text.append(piece.content)
            choice.token_ids += (*piece.token_ids, *piece.end_token_ids)
            choice.prompt_scores += piece.prompt_scores
            choice.scored += piece.scored
            choice.finish_reason = piece.finish_reason
        answer = [
            self._choice(
                Piece(
                    index,
                    "".join(choice.text),
                    token_ids=choice.token_ids,
                    prompt_scores=choice.prompt_scores,
                    scored=choice.scored,
                    finish_reason=choice.finish_reason,
                ),
                is_first=True,
            )
            for index, choice in enumerate(choices)
        ]
        return self._encode(answer, usage_of(generation.tally), timings_of(generation))

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as events, without the closing [DONE]."""
        usage: Usage | UnsetType | None = None if self._include_usage else UNSET
        begun: set[int] = set()
        async for piece in generation:
            choice = self._choice(piece, is_first=piece.index not in begun)
            begun.add(piece.index)
            is_last = generation.is_over and not self._include_usage
            so_far = usage_of(generation.tally) if self._continuous_usage else usage
            yield event(self._encode([choice], so_far, timings_of(generation) if is_last else UNSET))
        if self._include_usage:
            yield event(self._encode([], usage_of(generation.tally), timings_of(generation)))

    def _choice(self, piece: Piece, *, is_first: bool) -> CompletionChoice:
        """A piece of a choice, or all of it; its first piece tells of the prompt too."""
        text, index = piece.content, piece.index
        echo = self._echoes[index] if is_first and self._echoes else ""
        logprobs = self._logprobs(piece, with_prompt=bool(echo)) if piece.scored or is_first else None
        choice = CompletionChoice(index, echo + text, logprobs, piece.finish_reason)
        if self._return_token_ids:
            choice.token_ids = [*piece.token_ids, *piece.end_token_ids]
            choice.prompt_token_ids = self._prompts[index] if is_first else UNSET
        return choice

    def _encode(
        self, choices: list[CompletionChoice], usage: Usage | UnsetType | None, timings: Timings | UnsetType
    ) -> bytes:
        return encoder.encode(Completion(self._id, self._created, self._model, choices, usage, timings))

    def _logprobs(self, piece: Piece, *, with_prompt: bool) -> CompletionLogprobs | None:
        if self._num_logprobs is None:
            return None
        logprobs = CompletionLogprobs([], [], [] if self._num_logprobs else None, [])
        if with_prompt:
            first, *others = self._prompts[piece.index]
            self._add_score(logprobs, piece.index, first, None)
            for token_id, scores in zip(others, piece.prompt_scores, strict=True):
                self._add_score(logprobs, piece.index, token_id, scores)
        for each in piece.scored:
            self._add_score(logprobs, piece.index, each.token_id, each.scores)
        return logprobs

    def _add_score(self, logprobs: CompletionLogprobs, index: int, token_id: int, scores: TokenLogprobs | None) -> None:
        token = spelled(self._tokenizer, token_id)
        logprobs.tokens.append(token)
        logprobs.token_logprobs.append(finite(scores.logprob) if scores else None)
        logprobs.text_offset.append(self._offsets[index])
        self._offsets[index] += len(token)
        if logprobs.top_logprobs is not None:
            logprobs.top_logprobs.append(self._rivals(token, scores) if scores else None)

    def _rivals(self, token: str, scores: TokenLogprobs) -> dict[str, float]:
        """The likeliest tokens, and the drawn one wherever it stands, so there may be one more than was asked for."""
        pairs = zip(scores.top_token_ids, scores.top_logprobs, strict=True)
        rivals = {spelled(self._tokenizer, token_id): finite(logprob) for token_id, logprob in pairs}
        return rivals | {token: finite(scores.logprob)}


def text_of(front: Front, prompt: str | list[int]) -> str:
    """A prompt as text."""
    if isinstance(prompt, str):
        return prompt
    tokenizer = front.model.text.tokenizer
    return b"".join(tokenizer.id_to_bytes(token_id) for token_id in prompt).decode("utf-8", "replace")


def spelled(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as this endpoint writes it: tokens that are no whole characters as `bytes:` and their values."""
    spelled = tokenizer.id_to_bytes(token_id)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)

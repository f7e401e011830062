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
from antiphon.http.generation import Generation, Job, Prompt, ScoredToken, start_generation
from antiphon.http.limits import MAX_PROMPTS, MAX_SEQUENCES, read_json_object
from antiphon.http.openapi import json_body
from antiphon.http.responses import Completion, CompletionChoice, CompletionLogprobs, Usage, encoder
from antiphon.http.sampling import check_prompt_length, check_token_ids, sampling_params
from antiphon.http.schemas import CompletionRequest
from antiphon.http.sse import EventStream, answer_or_disconnect, event
from antiphon.http.usage import finite, new_id, usage_of
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
    facts = front.facts()
    n = body.n or 1
    prompts = []
    for token_ids in await _prompts(front, body, n):
        check_token_ids(token_ids, facts.vocab_size, "prompt")
        check_prompt_length(len(token_ids), facts.context_length, "prompt")
        sampling = sampling_params(
            body,
            facts,
            front.model.generation_defaults,
            num_prompt_tokens=len(token_ids),
            default_max_tokens=DEFAULT_MAX_TOKENS,
        )
        prompts.append(Prompt(token_ids, sampling))
    return Job(new_id("cmpl"), prompts, body.stops, n, splits_thought=False)


async def _prompts(front: Front, body: CompletionRequest, n: int) -> list[list[int]]:
    """The token ids of every prompt, whichever way they were sent."""
    sent = body.prompt
    several = [sent] if isinstance(sent, str) or (sent and isinstance(sent[0], int)) else sent
    if not several or not all(several):
        raise InvalidRequest("'prompt' is empty; there must be at least one token to continue.", param="prompt")
    if len(several) > MAX_PROMPTS or len(several) * n > MAX_SEQUENCES:
        raise InvalidRequest(
            f"'prompt' has {len(several)} prompts and 'n' is {n}; the most is {MAX_PROMPTS} prompts and "
            f"{MAX_SEQUENCES} choices in one request.",
            param="prompt",
        )
    encoded = []
    for prompt in several:
        if isinstance(prompt, str):
            encoded.append(await front.encode(prompt))
        else:
            encoded.append(list(prompt))  # type: ignore[arg-type]  # a list of ids, as the schema made sure
    return encoded


@dataclass(slots=True)
class _Whole:
    """One choice as it grows."""

    text: list[str] = field(default_factory=list)
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
        self._offsets = [0] * (len(job.prompts) * job.n)  # characters of each choice's scored tokens so far

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON object."""
        choices = [_Whole() for _ in self._offsets]
        async for piece in generation:
            choice = choices[piece.index]
            choice.text.append(piece.content)
            choice.scored += piece.scored
            choice.finish_reason = piece.finish_reason
        answer = [
            CompletionChoice(index, "".join(choice.text), self._logprobs(index, choice.scored), choice.finish_reason)
            for index, choice in enumerate(choices)
        ]
        return self._encode(answer, usage_of(generation.tally))

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as events, without the closing [DONE]."""
        usage = None if self._include_usage else UNSET
        async for piece in generation:
            logprobs = self._logprobs(piece.index, piece.scored) if piece.scored else None
            choice = CompletionChoice(piece.index, piece.content, logprobs, piece.finish_reason)
            yield event(self._encode([choice], usage))
        if self._include_usage:
            yield event(self._encode([], usage_of(generation.tally)))

    def _encode(self, choices: list[CompletionChoice], usage: Usage | UnsetType | None) -> bytes:
        return encoder.encode(Completion(self._id, self._created, self._model, choices, usage))

    def _logprobs(self, index: int, scored: list[ScoredToken]) -> CompletionLogprobs | None:
        if self._num_logprobs is None:
            return None
        logprobs = CompletionLogprobs([], [], [] if self._num_logprobs else None, [])
        for each in scored:
            token = spelled(self._tokenizer, each.token_id)
            logprobs.tokens.append(token)
            logprobs.token_logprobs.append(finite(each.scores.logprob))
            logprobs.text_offset.append(self._offsets[index])
            self._offsets[index] += len(token)
            if logprobs.top_logprobs is not None:
                logprobs.top_logprobs.append(self._rivals(token, each))
        return logprobs

    def _rivals(self, token: str, scored: ScoredToken) -> dict[str, float]:
        """The likeliest tokens, and the drawn one wherever it stands, so there may be one more than was asked for."""
        scores = scored.scores
        pairs = zip(scores.top_token_ids, scores.top_logprobs, strict=True)
        rivals = {spelled(self._tokenizer, token_id): finite(logprob) for token_id, logprob in pairs}
        return rivals | {token: finite(scores.logprob)}


def spelled(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as this endpoint writes it: tokens that are no whole characters as `bytes:` and their values."""
    spelled = tokenizer.id_to_bytes(token_id)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)

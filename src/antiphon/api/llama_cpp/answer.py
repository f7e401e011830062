"""llama-server's `/completion`: translates its fields to a completion request, and writes answers in its format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from antiphon.api.completions import request as completions
from antiphon.api.completions.understand import understand
from antiphon.api.context import Context
from antiphon.api.events import COMMENT, MEDIA_TYPE, error_event, event
from antiphon.api.exchange import Exchange
from antiphon.api.generation import Generation
from antiphon.api.llama_cpp.request import LlamaCompletionRequest
from antiphon.api.llama_cpp.shapes import Completion
from antiphon.api.logprobs import token_logprob
from antiphon.api.pieces import Piece, Progress, ScoredToken
from antiphon.api.progress import prompt_progress_of, queue_of
from antiphon.api.shapes import TokenLogprob, encoder
from antiphon.api.submission import start_generation
from antiphon.api.usage import degraded_of, inexact_of, timings_of
from antiphon.errors import AntiphonError, InvalidRequest
from antiphon.metrics import RequestAccount

_SAME = (
    *("prompt", "stream", "temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty"),
    *("frequency_penalty", "ignore_eos", "grammar", "json_schema", "return_progress", "max_wait", "timeout", "degrade"),
)
_FORBIDDEN = -100.0  # a bias with which a token is not drawn
_UNLIMITED = 1 << 31  # reduced to what fits in the context


class LlamaCompletionAnswer:
    """One request's answer."""

    media_type, last, keep_alive = MEDIA_TYPE, b"", COMMENT

    def __init__(self, context: Context, body: LlamaCompletionRequest) -> None:
        self._model = context.model.name
        self._tokenizer = context.model.text.tokenizer
        self._with_tokens = bool(body.return_tokens)
        self._with_probabilities = bool(body.n_probs)

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON object."""
        pieces = [piece async for piece in generation]
        answer = self._part(
            "".join(piece.content for piece in pieces),
            [token_id for piece in pieces for token_id in piece.token_ids],
            [scored for piece in pieces for scored in piece.scored],
        )
        return encoder.encode(self._ended(answer, pieces[-1], generation))

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as events; the last has no text."""
        piece = Piece(0)
        async for item in generation.with_progress():
            if isinstance(item, Progress):
                part = self._part("", [], [])
                part.queue, part.prompt_progress = queue_of(item), prompt_progress_of(item)
                yield event(encoder.encode(part))
                continue
            piece = item
            if piece.content or piece.token_ids:
                yield event(encoder.encode(self._part(piece.content, piece.token_ids, piece.scored)))
        yield event(encoder.encode(self._ended(self._part("", [], []), piece, generation)))

    def failed(self, error: AntiphonError) -> bytes:
        """The event that ends a failed stream."""
        return error_event(error)

    def _part(self, text: str, token_ids: list[int], scored: list[ScoredToken]) -> Completion:
        probabilities: list[TokenLogprob] | UnsetType = UNSET
        if self._with_probabilities:
            probabilities = [token_logprob(self._tokenizer, each) for each in scored]
        tokens = list(token_ids) if self._with_tokens else []
        return Completion(0, text, tokens, False, self._model, probabilities)

    def _ended(self, answer: Completion, last: Piece, generation: Generation) -> Completion:
        tally = generation.tally
        answer.stop = True
        answer.stop_type = _stop_type(last)
        answer.ended_by = last.ended_by or UNSET
        answer.stopping_word = last.stop_string or ""
        answer.tokens_predicted, answer.tokens_evaluated = tally.completion, tally.prompt
        answer.tokens_cached, answer.truncated = tally.cached, False
        answer.timings, answer.degraded = timings_of(generation), degraded_of(generation)
        answer.inexact_continuation = inexact_of(generation)
        return answer


def _stop_type(last: Piece) -> Literal["eos", "limit", "word"]:
    if last.stop_string is not None:
        return "word"
    return "limit" if last.finish_reason == "length" else "eos"


def _fields(body: LlamaCompletionRequest) -> dict[str, Any]:
    """The request as the fields of a completion request. Fields that were not sent are left out."""
    fields: dict[str, Any] = {name: getattr(body, name) or None for name in ("grammar", "stop")}
    fields |= {name: getattr(body, name) for name in _SAME if name not in fields}
    fields |= {"max_tokens": _UNLIMITED if body.n_predict is None else body.n_predict}
    fields |= {"repetition_penalty": body.repeat_penalty, "logprobs": body.n_probs or None}
    if body.n_predict == 0:
        fields["echo"] = True  # nothing is generated, but the prompt is computed
    if body.logit_bias:
        fields["logit_bias"] = {str(token): _bias(bias) for token, bias in body.logit_bias}
    return {name: value for name, value in fields.items() if value is not None}


def _bias(value: object) -> float:
    if value is False:
        return _FORBIDDEN
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest("Invalid value for 'logit_bias': a bias is a number, or false.", param="logit_bias")
    return max(_FORBIDDEN, min(-_FORBIDDEN, float(value)))


async def begin(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange:
    """Like `begin` of completions."""
    context.facts()
    body = await context.validated(LlamaCompletionRequest, fields)
    job = await understand(context, await context.reread(completions.CompletionRequest, _fields(body)))
    generation = start_generation(context, job, account)
    return Exchange(generation, LlamaCompletionAnswer(context, body), bool(body.stream), body.ignored)

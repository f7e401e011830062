"""`POST /v1/chat/completions`: messages in, an answer out, whole or streamed.

Owns the way from chat messages to a prompt and from pieces of text to OpenAI's chat shapes. It promises that everything
that can be wrong with a request is found before the engine hears of it. The thought of a reasoning model goes out under
both of its names, `reasoning_content` and `reasoning`, since clients know one or the other.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType

from antiphon.errors import InvalidRequest
from antiphon.http.errors import validate
from antiphon.http.front import Front, front_of
from antiphon.http.generation import Generation, Job, Piece, Prompt, ScoredToken, ToolCallDelta, start_generation
from antiphon.http.limits import read_json_object
from antiphon.http.openapi import json_body
from antiphon.http.responses import (
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
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
    encoder,
)
from antiphon.http.sampling import check_prompt_length, sampling_params
from antiphon.http.schemas import ChatCompletionRequest
from antiphon.http.schemas import ChatMessage as IncomingMessage
from antiphon.http.sse import EventStream, answer_or_disconnect, event
from antiphon.http.thinking import thinking_wish
from antiphon.http.tools import answer_grammar, tool_reading
from antiphon.http.usage import finite, new_id, timings_of, usage_of
from antiphon.http.vote import vote
from antiphon.text import ChatPrompt, Tokenizer

router = APIRouter()


@router.post("/v1/chat/completions", openapi_extra=json_body(ChatCompletionRequest))
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation."""
    front = front_of(request)
    with front.account(request, "chat") as account:
        front.facts()
        body = validate(ChatCompletionRequest, await read_json_object(request, front.settings.max_body_bytes))
        job = await understand(front, body)
        generation = start_generation(front, job, account)
    writer = _Writer(job, front, body)
    if body.stream:
        return EventStream(generation, writer.stream(generation))
    return await answer_or_disconnect(request, generation, writer.whole(generation))


async def understand(front: Front, body: ChatCompletionRequest) -> Job:
    """The request in the engine's terms, or the reason why it cannot be served."""
    facts, text, priority = front.facts(), front.model.text, front.priority(body.priority)
    wish = thinking_wish(body, thinks=text.thinks, loop_guard=front.settings.loop_guard)
    prompt = await prompt_of(front, body, limit=facts.context_length)
    check_prompt_length(len(prompt.token_ids), facts.context_length, "messages")
    grammar = await answer_grammar(body, text)
    advice = front.model.generation_defaults
    sampling = sampling_params(body, facts, advice, num_prompt_tokens=len(prompt.token_ids), grammar=grammar)
    if text.thought_tokens is not None:
        sampling = replace(
            sampling,
            thinking=wish.limit(text.thought_tokens, sampling.max_tokens, starts_in_thought=prompt.starts_in_thought),
        )
    return Job(
        request_id=new_id("chatcmpl"),
        prompts=[Prompt(prompt.token_ids, sampling, prompt.starts_in_thought)],
        stops=body.stops,
        n=body.n or 1,
        priority=priority,
        tools=tool_reading(body, text),
    )


async def prompt_of(front: Front, body: ChatCompletionRequest, *, limit: int | None = None) -> ChatPrompt:
    """The request's prompt in tokens; one that is certain to have `limit` of them is refused uncounted."""
    front.check_model(body.model)
    text = front.model.text
    if body.offers_tools and not text.reads_tool_calls:
        message = "'tools' are switched off on this server (--tool-call-parser none); leave them out."
        raise InvalidRequest(message, param="tools")
    wish = thinking_wish(body, thinks=text.thinks, loop_guard=front.settings.loop_guard)
    variables: dict[str, bool | str] = body.chat_template_kwargs.variables if body.chat_template_kwargs else {}
    if wish.enabled is not None:
        variables |= {"enable_thinking": wish.enabled, "thinking": wish.enabled}
    # Always in a thread: rendering takes turns, so even a short conversation may have to wait for a long one.
    return await front.in_thread(
        text.chat_prompt,
        [_turn(message) for message in body.messages],
        tools=[tool.model_dump(exclude_none=True) for tool in body.tools or ()] if body.offers_tools else (),
        fold_system=front.settings.system_prompt == "fold",
        add_generation_prompt=body.add_generation_prompt is not False,
        continue_final_message=bool(body.continue_final_message),
        close_thought=wish.is_closed,
        limit=limit,
        **variables,
    )


def _turn(message: IncomingMessage) -> dict[str, Any]:
    """A message as chat templates know it: plain text, `system` where newer clients say `developer`."""
    turn: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
    thought = message.reasoning_content or message.reasoning
    if message.role == "assistant" and thought:
        turn["reasoning_content"] = thought
    if message.tool_calls:
        turn["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if message.role == "tool" and message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


@dataclass(slots=True)
class _Whole:
    """One choice as it grows."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    tool_calls: list[MadeCall] = field(default_factory=list)
    finish_reason: str = ""
    thought_closed: str | UnsetType = UNSET


class _Writer:
    """Writes one request's answer."""

    def __init__(self, job: Job, front: Front, body: ChatCompletionRequest) -> None:
        self._id = job.request_id
        self._created = int(time.time())
        self._model = front.model.name
        self._thinks = front.model.text.thinks
        self._tokenizer = front.model.text.tokenizer
        self._n = body.n or 1
        self._with_logprobs = body.num_logprobs is not None
        self._include_usage = body.include_usage
        self._continuous_usage = body.continuous_usage
        self._prompt_token_ids = job.prompts[0].token_ids if body.return_token_ids else UNSET
        self._votes = bool(body.vote)

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
        return encoder.encode(answer)

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as events, without the closing [DONE]."""
        for index in range(self._n):
            begin = ChatChunkChoice(index, ChatDelta(role="assistant", content=""), None, None)
            yield self._chunk(generation, begin, prompt_token_ids=self._prompt_token_ids if index == 0 else UNSET)
        async for piece in generation:
            for choice in self._chunk_choices(piece):
                is_last = choice.finish_reason is not None and generation.is_over and not self._include_usage
                yield self._chunk(generation, choice, timings=timings_of(generation) if is_last else UNSET)
        if self._include_usage:
            yield self._event([], usage_of(generation.tally), timings_of(generation))

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
        return ChatChoice(index, message, logprobs, choice.finish_reason, choice.thought_closed, token_ids)

    def _chunk_choices(self, piece: Piece) -> Iterator[ChatChunkChoice]:
        """A chunk for the piece's text and one for each step of its calls; the last tells how the choice ended."""
        thought: str | UnsetType = piece.reasoning or UNSET
        deltas = [ChatDelta(content=piece.content or UNSET, reasoning_content=thought, reasoning=thought)]
        calls = [ChatDelta(tool_calls=[_call_chunk(delta)]) for delta in piece.tool_calls]
        deltas = [*deltas, *calls] if piece.content or piece.reasoning or not calls else calls
        logprobs = self._logprobs(piece.scored) if piece.scored else None
        for delta in deltas[:-1]:
            yield ChatChunkChoice(piece.index, delta, None, None)
        closed, token_ids = piece.thought_closed or UNSET, self._token_ids([*piece.token_ids, *piece.end_token_ids])
        yield ChatChunkChoice(piece.index, deltas[-1], logprobs, piece.finish_reason, closed, token_ids)

    def _token_ids(self, token_ids: list[int]) -> list[int] | UnsetType:
        return UNSET if self._prompt_token_ids is UNSET else token_ids

    def _chunk(
        self,
        generation: Generation,
        choice: ChatChunkChoice,
        timings: Timings | UnsetType = UNSET,
        prompt_token_ids: list[int] | UnsetType = UNSET,
    ) -> bytes:
        usage: Usage | UnsetType | None = None if self._include_usage else UNSET
        if self._continuous_usage:
            usage = usage_of(generation.tally)
        return self._event([choice], usage, timings, prompt_token_ids)

    def _event(
        self,
        choices: list[ChatChunkChoice],
        usage: Usage | UnsetType | None,
        timings: Timings | UnsetType = UNSET,
        prompt_token_ids: list[int] | UnsetType = UNSET,
    ) -> bytes:
        chunk = ChatCompletionChunk(self._id, self._created, self._model, choices, usage, timings, prompt_token_ids)
        return event(encoder.encode(chunk))

    def _logprobs(self, scored: list[ScoredToken]) -> ChatLogprobs | None:
        if not self._with_logprobs:
            return None
        return ChatLogprobs([token_logprob(self._tokenizer, each) for each in scored])


def _add_call(calls: list[MadeCall], delta: ToolCallDelta) -> None:
    if delta.id is not None:
        calls.append(MadeCall(delta.id, CalledFunction(delta.name or "", "")))
    calls[-1].function.arguments += delta.arguments


def _call_chunk(delta: ToolCallDelta) -> MadeCallDelta:
    """The first one of a call names it; the others bring arguments."""
    named = delta.id is not None
    return MadeCallDelta(
        delta.index,
        delta.id if delta.id is not None else UNSET,
        "function" if named else UNSET,
        CalledFunctionDelta(delta.name if delta.name is not None else UNSET, delta.arguments),
    )


def token_logprob(tokenizer: Tokenizer, scored: ScoredToken) -> TokenLogprob:
    spelled, scores = tokenizer.id_to_bytes(scored.token_id), scored.scores
    rivals = []
    for token_id, logprob in zip(scores.top_token_ids, scores.top_logprobs, strict=True):
        rival = tokenizer.id_to_bytes(token_id)
        rivals.append(TopLogprob(rival.decode("utf-8", "replace"), finite(logprob), list(rival)))
    return TokenLogprob(spelled.decode("utf-8", "replace"), finite(scores.logprob), list(spelled), rivals)

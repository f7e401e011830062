"""`POST /tokenize` and `POST /detokenize`, as vLLM has them: text or messages to token ids, and back.

Owns its own shapes. It promises that what `/tokenize` counts is what a generation of the same prompt or messages would
be charged. No engine is asked, so these are no requests in the metrics.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from annotated_types import MaxLen, MinLen
from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from antiphon.http.chat import prompt_of
from antiphon.http.completions import spelled
from antiphon.http.errors import validate
from antiphon.http.front import Front, front_of
from antiphon.http.limits import MAX_MESSAGES, read_json_object
from antiphon.http.openapi import json_body
from antiphon.http.responses import encoder
from antiphon.http.sampling import check_token_ids
from antiphon.http.schemas import ChatCompletionRequest, ChatMessage, ChatTemplateKwargs, TokenId
from antiphon.http.shape import Schema, conflict

router = APIRouter()


_OF_A_CHAT = {"messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"}


class TokenizeRequest(Schema):
    """The body of `POST /tokenize`: a `prompt` as `/v1/completions` takes it, or the `messages` of a chat."""

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = Field(None, description="With prompt: put what begins a text before it; true.")

    messages: Annotated[list[ChatMessage], MinLen(1), MaxLen(MAX_MESSAGES)] | None = None
    tools: Annotated[list[dict[str, Any]] | None, Field(description="As in chat.")] = None
    chat_template_kwargs: ChatTemplateKwargs | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    return_token_strs: bool | None = Field(None, description="Also tell how each token is spelled.")

    @model_validator(mode="after")
    def _one_text(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise conflict("prompt", "Send either 'prompt' or 'messages'.")
        others = _OF_A_CHAT - {"messages"}
        strangers = others if self.messages is None else {"add_special_tokens"}
        for name in sorted(strangers):
            if getattr(self, name) is not None:
                goes_with = "messages" if self.messages is None else "prompt"
                raise conflict(name, f"'{name}' goes with '{goes_with}'; leave it out.")
        return self


class DetokenizeRequest(Schema):
    """The body of `POST /detokenize`."""

    model: str | None = None
    tokens: list[TokenId]


class Tokens(msgspec.Struct):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Text(msgspec.Struct):
    prompt: str


@router.post("/tokenize", openapi_extra=json_body(TokenizeRequest))
async def tokenize(request: Request) -> Response:
    """The token ids of a prompt, or of a conversation."""
    front = front_of(request)
    facts = front.facts()
    body = validate(TokenizeRequest, await read_json_object(request, front.settings.max_body_bytes))
    front.check_model(body.model)
    token_ids = await _token_ids(front, body)
    tokenizer = front.model.text.tokenizer
    strings = [spelled(tokenizer, token_id) for token_id in token_ids] if body.return_token_strs else None
    answer = Tokens(len(token_ids), facts.context_length, token_ids, strings)
    return Response(encoder.encode(answer), media_type="application/json")


@router.post("/detokenize", openapi_extra=json_body(DetokenizeRequest))
async def detokenize(request: Request) -> Response:
    """The text that token ids spell, control tokens by their names."""
    front = front_of(request)
    facts = front.facts()
    body = validate(DetokenizeRequest, await read_json_object(request, front.settings.max_body_bytes))
    front.check_model(body.model)
    check_token_ids(body.tokens, facts.vocab_size, "tokens")
    tokenizer = front.model.text.tokenizer
    text = b"".join(tokenizer.id_to_bytes(token_id) for token_id in body.tokens).decode("utf-8", "replace")
    return Response(encoder.encode(Text(text)), media_type="application/json")


async def _token_ids(front: Front, body: TokenizeRequest) -> list[int]:
    if body.prompt is not None:
        return await front.encode(body.prompt, add_special_tokens=body.add_special_tokens is not False)
    asked = body.model_dump(include=_OF_A_CHAT, exclude_none=True)
    prompt = await prompt_of(front, validate(ChatCompletionRequest, asked))
    return prompt.token_ids

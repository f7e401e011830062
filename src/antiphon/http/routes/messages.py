"""`POST /v1/messages`, and `POST /v1/messages/count_tokens`: Anthropic's Messages API."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon.api.chat.understand import prompt_of
from antiphon.api.messages import shapes
from antiphon.api.messages.answer import begin
from antiphon.api.messages.request import CountTokensRequest, MessagesRequest
from antiphon.api.messages.understand import translate
from antiphon.api.shapes import encoder
from antiphon.api.threads import is_long
from antiphon.api.tokens import counting
from antiphon.http.context import context_of
from antiphon.http.openapi import json_body
from antiphon.http.reply import answer, read

PATH = "/v1/messages"


router = APIRouter()


@router.post(PATH, openapi_extra=json_body(MessagesRequest))
async def create_message(request: Request) -> Response:
    """Answer a conversation."""
    return await answer(request, "messages", begin)


@router.post(f"{PATH}/count_tokens", openapi_extra=json_body(CountTokensRequest))
async def count_tokens(request: Request) -> Response:
    """Count the tokens of a conversation's prompt without generating."""
    context = context_of(request)
    context.facts()
    body = await read(request, CountTokensRequest)
    translation = await context.if_long(is_long(body), translate, body)
    with translation.blaming(), counting(context) as limit:
        prompt = await prompt_of(context, translation.chat, limit=limit)
    return Response(encoder.encode(shapes.TokenCount(len(prompt.token_ids))), media_type="application/json")

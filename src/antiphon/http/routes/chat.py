"""`POST /v1/chat/completions`: answers a conversation, whole or streamed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon.api.chat.answer import begin
from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.http.openapi import json_body
from antiphon.http.reply import answer

router = APIRouter()


@router.post("/v1/chat/completions", openapi_extra=json_body(ChatCompletionRequest))
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation."""
    return await answer(request, "chat", begin)

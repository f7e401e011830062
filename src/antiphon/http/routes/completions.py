"""`POST /v1/completions`: continues text or token ids, whole or streamed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon.api.completions.answer import begin
from antiphon.api.completions.request import CompletionRequest
from antiphon.http.openapi import json_body
from antiphon.http.reply import answer

router = APIRouter()


@router.post("/v1/completions", openapi_extra=json_body(CompletionRequest))
async def create_completion(request: Request) -> Response:
    """Continue a text."""
    return await answer(request, "completions", begin)

"""`POST /v1/responses`, and `GET` and `DELETE` of a stored response."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon.api.responses import shapes
from antiphon.api.responses.answer import begin, stored_response
from antiphon.api.responses.request import ResponseRequest
from antiphon.api.shapes import encoder
from antiphon.http.context import context_of
from antiphon.http.openapi import json_body
from antiphon.http.reply import answer

router = APIRouter()


@router.post("/v1/responses", openapi_extra=json_body(ResponseRequest))
async def create_response(request: Request) -> Response:
    """Answer a conversation of items."""
    return await answer(request, "responses", begin)


@router.get("/v1/responses/{response_id}")
async def get_response(request: Request, response_id: str) -> Response:
    """A response that was kept, as it was sent."""
    return Response(stored_response(context_of(request), response_id).body, media_type="application/json")


@router.delete("/v1/responses/{response_id}")
async def delete_response(request: Request, response_id: str) -> Response:
    """Forget a response; responses that went on from it stay as they are."""
    context = context_of(request)
    stored_response(context, response_id)
    context.responses.forget(response_id)
    return Response(encoder.encode(shapes.Deleted(response_id)), media_type="application/json")

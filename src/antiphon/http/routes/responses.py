"""`POST /v1/responses`, and `GET`, `DELETE` and `cancel` of a response that is stored or runs in the background.

A request for a response that another server stores is passed on to it (`http.forwarding`).
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon.api.chat.understand import prompt_of
from antiphon.api.response_store import Kept
from antiphon.api.responses import shapes
from antiphon.api.responses.answer import begin, conversation
from antiphon.api.responses.background import Follower
from antiphon.api.responses.request import InputItemsQuery, InputTokensRequest, ResponseRequest, StoredResponseQuery
from antiphon.api.responses.stored import event_stream, find_response, input_items
from antiphon.api.shapes import encoder
from antiphon.api.validation import validate
from antiphon.errors import InvalidRequest
from antiphon.http.context import context_of, read_json_object
from antiphon.http.forwarding import continued_elsewhere, forwarded
from antiphon.http.openapi import json_body
from antiphon.http.reply import answer, read
from antiphon.http.sse import EventStream

router = APIRouter()


@router.post("/v1/responses", openapi_extra=json_body(ResponseRequest))
async def create_response(request: Request) -> Response:
    """Answer a conversation of items."""
    reply, fields = await continued_elsewhere(request, "responses")
    return reply or await answer(request, "responses", begin, fields)


@router.post("/v1/responses/input_tokens", openapi_extra=json_body(InputTokensRequest))
async def count_input_tokens(request: Request) -> Response:
    """Count the tokens of a response's prompt without generating."""
    context = context_of(request)
    context.facts()
    fields = await read_json_object(request)
    if (reply := await forwarded(request, fields.get("previous_response_id"), fields)) is not None:
        return reply
    body = await read(request, InputTokensRequest, fields)
    translation = conversation(context, body)
    with translation.blaming():
        prompt = await prompt_of(context, translation.chat)
    return _json(shapes.InputTokens(len(prompt.token_ids)))


@router.get("/v1/responses/{response_id}")
async def get_response(request: Request, response_id: str) -> Response:
    """A response that is stored or runs in the background, or its events with `stream=true`."""
    if (reply := await forwarded(request, response_id)) is not None:
        return reply
    found = find_response(context_of(request), response_id)
    asked = validate(StoredResponseQuery, dict(request.query_params), from_strings=True)
    if asked.stream:
        return EventStream(event_stream(found, asked.starting_after), Follower())
    body = found.body if isinstance(found, Kept) else found.snapshot()
    return Response(body, media_type="application/json")


@router.get("/v1/responses/{response_id}/input_items")
async def list_input_items(request: Request, response_id: str) -> Response:
    """The input items of a response."""
    if (reply := await forwarded(request, response_id)) is not None:
        return reply
    found = find_response(context_of(request), response_id)
    return _json(
        input_items(response_id, found, validate(InputItemsQuery, dict(request.query_params), from_strings=True))
    )


@router.post("/v1/responses/{response_id}/cancel")
async def cancel_response(request: Request, response_id: str) -> Response:
    """End a background response now, if it has not ended; its text so far is kept."""
    if (reply := await forwarded(request, response_id)) is not None:
        return reply
    found = find_response(context_of(request), response_id)
    if not isinstance(found, Kept):
        found.cancel()
        return Response(found.snapshot(), media_type="application/json")
    if found.history is None:
        message = "Only a response that was created with 'background': true can be cancelled."
        raise InvalidRequest(message, param="response_id")
    return Response(found.body, media_type="application/json")


@router.delete("/v1/responses/{response_id}")
async def delete_response(request: Request, response_id: str) -> Response:
    """Delete a response; one that runs is cancelled. Responses that continue it are not affected."""
    if (reply := await forwarded(request, response_id)) is not None:
        return reply
    context = context_of(request)
    found = find_response(context, response_id)
    if not isinstance(found, Kept):
        found.cancel()
    context.responses.forget(response_id)
    return _json(shapes.Deleted(response_id))


def _json(answer: shapes.Deleted | shapes.InputTokens | shapes.ItemList) -> Response:
    return Response(encoder.encode(answer), media_type="application/json")

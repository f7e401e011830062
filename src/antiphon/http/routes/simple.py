"""`POST /generate` and `POST /generate-batch`: answer questions with plain text, for small scripts."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial

from fastapi import APIRouter, Request, Response

from antiphon.api.simple.answer import answer_all, encoded_answer
from antiphon.api.simple.request import BatchRequest, SimpleRequest
from antiphon.api.simple.understand import items_of, start
from antiphon.api.validation import validate
from antiphon.errors import (
    AntiphonError,
    InvalidRequest,
)
from antiphon.http.context import account_of, context_of, read_json, read_json_object, with_body
from antiphon.http.early_refusal import refuse_early
from antiphon.http.edge.body import read_nothing
from antiphon.http.openapi import json_body
from antiphon.http.reply import with_degraded
from antiphon.http.sse import answer_or_disconnect

router = APIRouter()


@router.post("/generate", openapi_extra=json_body(SimpleRequest))
async def generate(request: Request) -> Response:
    """Answer one prompt, sent as JSON or in the query."""
    context = context_of(request)
    arrived_at = time.monotonic()
    with account_of(request, "generate") as account:
        context.check_load()
        body = await _read(request)
        generation = await start(with_body(context, request), body, account)
    response = await answer_or_disconnect(request, generation, encoded_answer(generation, arrived_at))
    return with_degraded(response, generation.degraded)


@router.post("/generate-batch", openapi_extra=json_body(BatchRequest))
async def generate_batch(request: Request) -> Response:
    """Answer a list of prompts together; each succeeds or fails by itself."""
    context = context_of(request)  # before the body is read: its digest is not that of an item
    arrived_at = time.monotonic()
    try:
        items = items_of(await read_json(request))
    except AntiphonError:
        with account_of(request, "generate_batch"):  # each item counts as a request; this body had none
            raise
    work = answer_all(context, items, lambda: account_of(request, "generate_batch"), arrived_at)
    return await answer_or_disconnect(request, nullcontext(), work)


async def _read(request: Request) -> SimpleRequest:
    if not request.query_params:
        check = partial(refuse_early, request)
        return validate(SimpleRequest, await read_json_object(request, before_decoding=check))
    await read_nothing(request)
    fields = request.query_params.multi_items()
    if len(dict(fields)) < len(fields):
        raise InvalidRequest("A field is in the query more than once; send each field once.")
    return validate(SimpleRequest, dict(fields), from_strings=True)

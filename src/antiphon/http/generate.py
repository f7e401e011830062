"""`POST /generate` and `POST /generate-batch`: a question in, a text out, for scripts that want no more than that.

Owns its own shapes. A prompt is what a person asks: the model's chat template is put around it. It promises that the
items of a batch stand or fall alone, that results come in the order of the items, and that a batch, however long,
leaves room in the queue for others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from typing import Annotated, Any

import msgspec
from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from pydantic import Field

from antiphon.errors import AntiphonError, InvalidRequest
from antiphon.http.chat import understand
from antiphon.http.errors import internal_error, validate
from antiphon.http.front import Front, front_of
from antiphon.http.generation import Generation, start_generation
from antiphon.http.limits import MAX_BATCH, read_json, read_json_object, read_nothing
from antiphon.http.openapi import json_body
from antiphon.http.responses import encoder
from antiphon.http.shape import Schema
from antiphon.http.sse import answer_or_disconnect
from antiphon.http.translation import Translation
from antiphon.metrics import RequestAccount

BATCH_SHARE = 4  # a batch has at most one in so many of the server's places at once

logger = logging.getLogger(__name__)

router = APIRouter()


class GenerateRequest(Schema):
    """The body, or the query, of `POST /generate`."""

    prompt: Annotated[str, MinLen(1)] = Field(description="A question, as a person asks it.")
    max_tokens: Annotated[int, Ge(1)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    seed: Annotated[int, Ge(-(1 << 63)), Le((1 << 64) - 1)] | None = None
    system: str | None = Field(None, description="A system message before the prompt.")


class BatchItem(GenerateRequest):
    """One item of a batch."""

    id: str | int | None = Field(None, description="Comes back as request_id; by default the item's place, from 0.")


class BatchRequest(Schema):
    """The body of `POST /generate-batch`; the list of items alone will do too."""

    requests: Annotated[list[BatchItem], MinLen(1), MaxLen(MAX_BATCH)]


class Answer(msgspec.Struct):
    response: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float  # from the server's reading of the request to the last token
    reasoning: str | UnsetType = UNSET  # a reasoning model's thought


class Fault(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class BatchAnswer(Answer, kw_only=True):
    request_id: str | int


class BatchFault(msgspec.Struct):
    request_id: str | int
    error: Fault
    latency_ms: float


class Results(msgspec.Struct):
    results: list[BatchAnswer | BatchFault]
    latency_ms: float


@router.post("/generate", openapi_extra=json_body(GenerateRequest))
async def generate(request: Request) -> Response:
    """Answer one prompt, sent as JSON or in the query."""
    front = front_of(request)
    arrived_at = time.monotonic()
    with front.account(request, "generate") as account:
        front.facts()
        body = await _read(request, front.settings.max_body_bytes)
        generation = await _start(front, body, account)
    return await answer_or_disconnect(request, generation, _encoded(generation, arrived_at))


@router.post("/generate-batch", openapi_extra=json_body(BatchRequest))
async def generate_batch(request: Request) -> Response:
    """Answer a list of prompts, each for itself, together."""
    front = front_of(request)
    arrived_at = time.monotonic()
    try:
        front.facts()
        items = _items(await read_json(request, front.settings.max_body_bytes))
    except AntiphonError:
        with front.account(request, "generate_batch"):  # its items are requests of their own; this had none
            raise
    return await answer_or_disconnect(request, nullcontext(), _answer_all(request, items, arrived_at))


async def _read(request: Request, max_bytes: int) -> GenerateRequest:
    if not request.query_params:
        return validate(GenerateRequest, await read_json_object(request, max_bytes))
    await read_nothing(request)
    fields = request.query_params.multi_items()
    if len(dict(fields)) < len(fields):
        raise InvalidRequest("A field is in the query more than once; send each once.")
    return validate(GenerateRequest, dict(fields), from_strings=True)


async def _start(front: Front, body: GenerateRequest, account: RequestAccount) -> Generation:
    messages = [{"role": "system", "content": body.system}] if body.system else []
    origins = ["system"] * len(messages) + ["prompt"]
    fields = body.model_dump(include={"max_tokens", "temperature", "top_p", "seed"}, exclude_none=True)
    fields["messages"] = [*messages, {"role": "user", "content": body.prompt}]
    translation = Translation(fields, origins, {"messages": "prompt"})
    with translation.blaming():
        return start_generation(front, await understand(front, translation.chat), account)


async def _encoded(generation: Generation, arrived_at: float) -> bytes:
    return encoder.encode(await _answer(generation, arrived_at))


async def _answer(generation: Generation, arrived_at: float) -> Answer:
    pieces = [piece async for piece in generation]
    thought = "".join(piece.reasoning for piece in pieces)
    return Answer(
        response="".join(piece.content for piece in pieces),
        finish_reason=next(piece.finish_reason for piece in reversed(pieces) if piece.finish_reason),
        prompt_tokens=generation.tally.prompt,
        completion_tokens=generation.tally.completion,
        latency_ms=_milliseconds_since(arrived_at),
        reasoning=thought or UNSET,
    )


# --- batches


def _items(body: object) -> list[Any]:
    """The items of a batch; whether each makes sense is looked at later, so that one which does not spoils no other."""
    items = body
    if isinstance(body, dict):
        if unknown := [name for name in body if name != "requests"]:
            raise InvalidRequest(f"Unknown parameter: {unknown[0][:100]!r}.", param=unknown[0][:100])
        items = body.get("requests")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_BATCH:
        raise InvalidRequest(
            f"'requests' must be a list of 1 to {MAX_BATCH} items, each with a 'prompt'.", param="requests"
        )
    return items


async def _answer_all(request: Request, items: list[Any], arrived_at: float) -> bytes:
    places = asyncio.Semaphore(max(1, front_of(request).settings.max_queued_requests // BATCH_SHARE))
    async with asyncio.TaskGroup() as group:
        results = [_result(request, index, item, places, arrived_at) for index, item in enumerate(items)]
        tasks = [group.create_task(result) for result in results]
    return encoder.encode(Results([task.result() for task in tasks], _milliseconds_since(arrived_at)))


async def _result(
    request: Request, index: int, item: object, places: asyncio.Semaphore, arrived_at: float
) -> BatchAnswer | BatchFault:
    front = front_of(request)
    sent = item.get("id") if isinstance(item, dict) else None
    # An item that is refused goes by its id too, if that at least makes sense.
    request_id = sent if isinstance(sent, str | int) and not isinstance(sent, bool) else index
    try:
        async with places:
            with front.account(request, "generate_batch") as account:
                if index:  # the first was counted with the batch itself
                    front.rates.take_request(account.key)
                if not isinstance(item, dict):
                    raise InvalidRequest("An item must be an object with a 'prompt'.")
                body = validate(BatchItem, item)
                generation = await _start(front, body, account)
            async with generation:
                answer = await _answer(generation, arrived_at)
        return BatchAnswer(request_id=request_id, **msgspec.structs.asdict(answer))
    except AntiphonError as error:
        fault = error
    except Exception:
        logger.exception("unexpected error in an item of a batch")
        fault = internal_error()
    told = Fault(fault.message, fault.type, fault.param, fault.code)
    return BatchFault(request_id, told, _milliseconds_since(arrived_at))


def _milliseconds_since(then: float) -> float:
    return round((time.monotonic() - then) * 1000, 1)

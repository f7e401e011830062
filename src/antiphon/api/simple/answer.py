"""Answers a question, or a list of questions, with plain text, for simple scripts.

The model's chat template is applied to each prompt. Items of a batch succeed or fail separately, and results are in the
order of the items. A batch of any length leaves room in the queue for other clients.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET

from antiphon.api.context import NO_DEADLINES, Context
from antiphon.api.errors import internal_error
from antiphon.api.generation import Generation
from antiphon.api.shapes import encoder
from antiphon.api.simple.request import BatchItem
from antiphon.api.simple.shapes import Answer, BatchAnswer, BatchFault, Fault, Results
from antiphon.api.simple.understand import start
from antiphon.api.usage import degraded_of, inexact_of
from antiphon.api.validation import validate
from antiphon.errors import (
    AntiphonError,
    InvalidRequest,
)
from antiphon.metrics import RequestAccount

BATCH_SHARE = 4  # a batch uses at most this fraction (1/4) of the server's queue at once


logger = logging.getLogger(__name__)


async def encoded_answer(generation: Generation, arrived_at: float) -> bytes:
    """The answer to one prompt."""
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
        ended_by=next((piece.ended_by for piece in pieces if piece.ended_by), UNSET),
        reasoning=thought or UNSET,
        degraded=degraded_of(generation),
        inexact_continuation=inexact_of(generation),
    )


async def answer_all(
    context: Context, items: list[Any], open_account: Callable[[], RequestAccount], arrived_at: float
) -> bytes:
    """The results of a batch, encoded; `open_account` is called once for each item."""
    context = replace(context, deadlines=NO_DEADLINES)  # its client waits for all items, and few run at once
    places = asyncio.Semaphore(max(1, context.settings.max_queued_requests // BATCH_SHARE))
    tasks: list[asyncio.Task[BatchAnswer | BatchFault]] = []
    async with asyncio.TaskGroup() as group:
        for index, item in enumerate(items):
            tasks.append(group.create_task(_result(context, index, item, open_account, places, arrived_at)))
            await asyncio.sleep(0)  # let other requests run between two items
    return encoder.encode(Results([task.result() for task in tasks], _milliseconds_since(arrived_at)))


async def _result(
    context: Context,
    index: int,
    item: object,
    open_account: Callable[[], RequestAccount],
    places: asyncio.Semaphore,
    arrived_at: float,
) -> BatchAnswer | BatchFault:
    sent = item.get("id") if isinstance(item, dict) else None
    # A refused item is identified by its id too, if the id is valid.
    request_id = sent if isinstance(sent, str | int) and not isinstance(sent, bool) else index
    try:
        async with places:
            with open_account() as account:
                if index:  # the first item was counted with the batch itself
                    context.rates.take_request(account.key)
                if not isinstance(item, dict):
                    raise InvalidRequest("An item must be an object with a 'prompt'.")
                body = validate(BatchItem, item)
                generation = await start(context, body, account)
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

"""Finds stored and running responses by their ids; the events of a stored response, and its input items."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from antiphon.api.context import Context
from antiphon.api.response_store import Kept, RunningResponse
from antiphon.api.responses import shapes
from antiphon.api.responses.event_log import begun, framed
from antiphon.api.responses.items import replayed
from antiphon.api.responses.request import InputItemsQuery, ResponseRequest
from antiphon.errors import InvalidRequest, ResponseNotFound

_decode_response = msgspec.json.Decoder(shapes.ResponseBody).decode
_decode_items = msgspec.json.Decoder(list[dict[str, Any]]).decode


def find_response(context: Context, id: str, *, param: str = "response_id") -> Kept | RunningResponse:
    """The response with that id, if it belongs to the request's key. Raises ResponseNotFound."""
    store = context.responses
    found = store.running(id, context.key) or store.get(id, context.key)
    if found is None:
        raise ResponseNotFound(
            f"There is no response {id[:100]!r}. This server stores the last {store.max_responses} responses, in at "
            f"most {store.max_bytes} bytes of memory, except those with 'store': false, until it stops. Send the whole "
            "conversation as 'input' instead.",
            param=param,
        )
    return found


def previous_response(context: Context, body: ResponseRequest) -> Kept | None:
    """The response that a request continues. Raises ResponseNotFound, and InvalidRequest if it cannot be continued."""
    if not body.previous_response_id:
        return None
    param = "previous_response_id"
    found = find_response(context, body.previous_response_id, param=param)
    if not isinstance(found, Kept):
        message = "The response is still being generated; wait for its end, or cancel it, before you continue it."
        raise InvalidRequest(message, param=param)
    most = context.responses.max_conversation_bytes
    if found.conversation_bytes > most:
        raise InvalidRequest(
            f"The conversation up to this response is longer than {most:,} bytes, so it cannot be continued by its id; "
            "send a shorter one as 'input'.",
            param=param,
        )
    return found


async def event_stream(found: Kept | RunningResponse, starting_after: int | None = None) -> AsyncIterator[bytes]:
    """The events of a response that have a number above `starting_after`.

    A background response has the same events as when it was generated. Of others, each text or thought is sent in one
    piece.
    """
    first = 0 if starting_after is None else starting_after + 1
    if not isinstance(found, Kept):
        async for chunk in found.follow(first):
            yield chunk
        return
    for chunk in found.history.replay(found.body, first) if found.history else _condensed(found, first):
        yield chunk
        await asyncio.sleep(0)


def _condensed(kept: Kept, first: int) -> Iterable[bytes]:
    for number, event in enumerate(_events(_decode_response(kept.body))):
        if number >= first:
            yield framed(number, event)


def _events(response: shapes.ResponseBody) -> Iterator[shapes.Event]:
    yield shapes.Created(response=begun(response, "in_progress"))
    yield shapes.InProgress(response=begun(response, "in_progress"))
    for index, item in enumerate(response.output):
        yield from replayed(index, item)
    over = shapes.Completed if response.status == "completed" else shapes.Incomplete
    yield over(response=response)


def input_items(response_id: str, found: Kept | RunningResponse, query: InputItemsQuery) -> shapes.ItemList:
    """A page of a response's input items, including those of earlier turns.

    Raises:
        InvalidRequest: there is no item with the id `after`.
    """
    asked = [_listed(response_id, index, item) for index, item in enumerate(_asked_items(found))]
    if query.order == "desc":
        asked.reverse()
    if query.after is not None:
        ids = [item["id"] for item in asked]
        if query.after not in ids:
            raise InvalidRequest(f"There is no item {query.after[:100]!r} in this response's input.", param="after")
        asked = asked[ids.index(query.after) + 1 :]
    page = asked[: query.limit]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return shapes.ItemList(page, first, last, has_more=len(asked) > len(page))


def _asked_items(found: Kept | RunningResponse) -> Sequence[dict[str, Any]]:
    """The items of the conversation without the answer."""
    turns = found.conversation
    if isinstance(found, Kept) and found.asked is not None:
        turns[-1] = found.asked
    conversation = [item for turn in turns for item in _decode_items(turn)]
    if isinstance(found, Kept) and found.asked is None:
        return conversation[: len(conversation) - len(_decode_response(found.body).output)]
    return conversation


def _listed(response_id: str, index: int, item: dict[str, Any]) -> dict[str, Any]:
    """An item in the format of a list: with a stable id, and its text in parts."""
    listed = {"id": f"item_{hashlib.sha256(f'{response_id} {index}'.encode()).hexdigest()[:32]}", **item}
    if isinstance(item.get("content"), str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        listed["content"] = [{"type": kind, "text": item["content"]}]
    return listed

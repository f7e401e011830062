"""The events of a stored response, and its input items."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from antiphon.api.events import named_event
from antiphon.api.response_store import Kept
from antiphon.api.responses import shapes
from antiphon.api.responses.items import replayed
from antiphon.api.responses.request import InputItemsQuery
from antiphon.api.shapes import encoder
from antiphon.errors import InvalidRequest

_decode_response = msgspec.json.Decoder(shapes.ResponseBody).decode
_decode_items = msgspec.json.Decoder(list[dict[str, Any]]).decode


def event_stream(kept: Kept, starting_after: int | None = None) -> bytes:
    """The events of a stored response, those with a `sequence_number` above `starting_after`.

    Each text or thought is sent in one piece.
    """
    first = 0 if starting_after is None else starting_after + 1
    framed: list[bytes] = []
    for number, event in enumerate(_events(_decode_response(kept.body))):
        if number >= first:
            event.sequence_number = number
            framed.append(named_event(str(event.__struct_config__.tag), encoder.encode(event)))
    return b"".join(framed)


def _events(response: shapes.ResponseBody) -> Iterator[shapes.Event]:
    begun = msgspec.structs.replace(
        response, status="in_progress", output=[], usage=None, completed_at=None, incomplete_details=None
    )
    yield shapes.Created(response=begun)
    yield shapes.InProgress(response=begun)
    for index, item in enumerate(response.output):
        yield from replayed(index, item)
    over = shapes.Completed if response.status == "completed" else shapes.Incomplete
    yield over(response=response)


def input_items(response_id: str, kept: Kept, query: InputItemsQuery) -> shapes.ItemList:
    """A page of a stored response's input items, including those of earlier turns.

    Raises:
        InvalidRequest: there is no item with the id `after`.
    """
    conversation = [item for turn in kept.conversation for item in _decode_items(turn)]
    num_answers = len(_decode_response(kept.body).output)
    asked = [
        _listed(response_id, index, item) for index, item in enumerate(conversation[: len(conversation) - num_answers])
    ]
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


def _listed(response_id: str, index: int, item: dict[str, Any]) -> dict[str, Any]:
    """An item in the format of a list: with a stable id, and its text in parts."""
    listed = {"id": f"item_{hashlib.sha256(f'{response_id} {index}'.encode()).hexdigest()[:32]}", **item}
    if isinstance(item.get("content"), str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        listed["content"] = [{"type": kind, "text": item["content"]}]
    return listed

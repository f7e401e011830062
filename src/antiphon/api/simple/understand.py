"""Converts a question to a chat request, and splits a batch into its items."""

from __future__ import annotations

from typing import Any

from antiphon.api.context import Context
from antiphon.api.generation import Generation
from antiphon.api.limits import MAX_BATCH
from antiphon.api.simple.request import SimpleRequest
from antiphon.api.translation import Translation
from antiphon.errors import (
    InvalidRequest,
)
from antiphon.metrics import RequestAccount


async def start(context: Context, body: SimpleRequest, account: RequestAccount) -> Generation:
    """Ask the model. Raises the same errors as chat, with the names of the fields that were sent."""
    context.check_engines()
    messages = [{"role": "system", "content": body.system}] if body.system else []
    origins = ["system"] * len(messages) + ["prompt"]
    same = {"max_tokens", "temperature", "top_p", "seed", "max_wait", "timeout", "degrade"}
    fields = body.model_dump(include=same, exclude_none=True)
    fields["messages"] = [*messages, {"role": "user", "content": body.prompt}]
    _, generation = await Translation(fields, origins, {"messages": "prompt"}).start(context, account)
    return generation


def items_of(body: object) -> list[Any]:
    """The items of a batch. Each is validated later by itself, so that an invalid item does not affect the others."""
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

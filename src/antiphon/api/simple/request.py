"""The bodies of `POST /generate` and `POST /generate-batch`."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import (
    Field,
)

from antiphon.api.limits import MAX_BATCH
from antiphon.api.schema import Schema


class SimpleRequest(Schema):
    """The body, or the query, of `POST /generate`."""

    prompt: Annotated[str, MinLen(1)] = Field(description="A question, as a person asks it.")
    max_tokens: Annotated[int, Ge(1)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    seed: Annotated[int, Ge(-(1 << 63)), Le((1 << 64) - 1)] | None = None
    system: str | None = Field(None, description="A system message before the prompt.")


class BatchItem(SimpleRequest):
    """One item of a batch."""

    id: str | int | None = Field(None, description="Comes back as request_id; by default the item's place, from 0.")


class BatchRequest(Schema):
    """The body of `POST /generate-batch`; the list of items alone will do too."""

    requests: Annotated[list[BatchItem], MinLen(1), MaxLen(MAX_BATCH)]

"""The bodies of `POST /generate` and `POST /generate-batch`."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import (
    Field,
)

from antiphon.api.fields import DegradeWish, MaxWait, Timeout
from antiphon.api.limits import MAX_BATCH
from antiphon.api.schema import Schema


class SimpleRequest(Schema):
    """The body, or the query, of `POST /generate`."""

    prompt: Annotated[str, MinLen(1)] = Field(description="The question. The chat template is applied to it.")
    max_tokens: Annotated[int, Ge(1)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    seed: Annotated[int, Ge(-(1 << 63)), Le((1 << 64) - 1)] | None = None
    max_wait: MaxWait = None
    timeout: Timeout = None
    degrade: DegradeWish = None
    system: str | None = Field(None, description="A system message before the prompt.")


class BatchItem(SimpleRequest):
    """One item of a batch."""

    id: str | int | None = Field(None, description="Returned as request_id. Default: the item's index, from 0.")


class BatchRequest(Schema):
    """The body of `POST /generate-batch`; a plain list of items is accepted too."""

    requests: Annotated[list[BatchItem], MinLen(1), MaxLen(MAX_BATCH)]

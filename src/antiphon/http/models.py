"""`GET /v1/models`: what is served here."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from msgspec import UNSET

from antiphon.http.front import front_of
from antiphon.http.responses import Model, ModelList, encoder

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """The one model, with its context length once that is known."""
    front = front_of(request)
    info = front.engine.info
    model = Model(front.model.name, front.model.created, UNSET if info is None else info.context_length)
    return Response(encoder.encode(ModelList([model])), media_type="application/json")

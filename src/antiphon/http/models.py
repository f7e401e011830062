"""`GET /v1/models` and `GET /v1/models/{id}`: what is served here."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from msgspec import UNSET

from antiphon.http.front import Front, front_of
from antiphon.http.responses import Model, ModelList, encoder

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """The one model, with its context length once that is known."""
    return _json(ModelList([_model(front_of(request))]))


@router.get("/v1/models/{name:path}")  # names may have slashes, as on hubs
async def get_model(request: Request, name: str) -> Response:
    """The same, asked for by its name."""
    front = front_of(request)
    front.check_model(name)
    return _json(_model(front))


def _model(front: Front) -> Model:
    info = front.engine.info
    return Model(front.model.name, front.model.created, UNSET if info is None else info.context_length)


def _json(answer: Model | ModelList) -> Response:
    return Response(encoder.encode(answer), media_type="application/json")

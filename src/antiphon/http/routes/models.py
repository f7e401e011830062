"""`GET /v1/models` and `GET /v1/models/{id}`: the served model."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType

from antiphon.api.context import Context
from antiphon.api.shapes import encoder
from antiphon.http.context import context_of

router = APIRouter()


class Model(msgspec.Struct, tag_field="object", tag="model"):
    id: str
    created: int
    max_model_len: int | UnsetType = UNSET  # vLLM's name of the context length; known once the engine is ready
    owned_by: str = "antiphon"


class ModelList(msgspec.Struct, tag_field="object", tag="list"):
    data: list[Model]


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """The served model, with its context length once the engine is ready."""
    return _json(ModelList([_model(context_of(request))]))


@router.get("/v1/models/{name:path}")  # names may have slashes, as on hubs
async def get_model(request: Request, name: str) -> Response:
    """The served model, by name."""
    context = context_of(request)
    context.check_model(name)
    return _json(_model(context))


def _model(context: Context) -> Model:
    info = context.engine.info
    return Model(context.model.name, context.model.created, UNSET if info is None else info.context_length)


def _json(answer: Model | ModelList) -> Response:
    return Response(encoder.encode(answer), media_type="application/json")

"""Ollama's API: `/api/chat`, `/api/generate`, and what its clients ask about models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from antiphon import __version__
from antiphon.api.ollama import models, shapes
from antiphon.api.ollama.answer import begin_chat, begin_generate, loaded_line
from antiphon.api.ollama.request import OllamaChatRequest, OllamaGenerateRequest, OllamaShowRequest
from antiphon.api.shapes import encoder
from antiphon.errors import AntiphonError
from antiphon.http.context import account_of, context_of, read_json_object
from antiphon.http.openapi import json_body
from antiphon.http.reply import Begin, answer, read

PATH = "/api"

router = APIRouter()


@router.post("/api/chat", openapi_extra=json_body(OllamaChatRequest))
async def chat(request: Request) -> Response:
    """Answer a conversation, by default streamed."""
    return await _answer(request, "ollama_chat", begin_chat, needed="messages")


@router.post("/api/generate", openapi_extra=json_body(OllamaGenerateRequest))
async def generate(request: Request) -> Response:
    """Answer a prompt, by default streamed."""
    return await _answer(request, "ollama_generate", begin_generate, needed="prompt")


@router.get("/api/tags")
async def list_models(request: Request) -> Response:
    """The served model."""
    return _json(models.listed(context_of(request)))


@router.get("/api/ps")
async def list_loaded_models(request: Request) -> Response:
    """The served model, once it is loaded."""
    return _json(models.loaded(context_of(request)))


@router.post("/api/show", openapi_extra=json_body(OllamaShowRequest))
async def show_model(request: Request) -> Response:
    """The served model in detail."""
    body = await read(request, OllamaShowRequest, any_media_type=True)
    models.check_name(context_of(request), body.model or body.name)
    return _json(models.shown(context_of(request)))


@router.get("/api/version")
async def version(request: Request) -> Response:
    """Antiphon's own version."""
    return _json(shapes.Version(__version__))


async def _answer(request: Request, endpoint: str, begin: Begin, *, needed: str) -> Response:
    """Answer a request. Ollama's clients send no media type, and an empty request to load the model."""
    context = context_of(request)
    try:
        fields = await read_json_object(request, any_media_type=True)
    except AntiphonError:
        with account_of(request, endpoint):
            raise
    if fields.get(needed):
        return await answer(request, endpoint, begin, fields)
    models.check_name(context, str(fields.get("model", "")))
    context.facts()  # NotReady while it is loading
    return _json(loaded_line(context.model.name, is_chat=needed == "messages"))


def _json(answer: Any) -> Response:  # noqa: ANN401
    return Response(encoder.encode(answer), media_type="application/json")

"""llama-server's own routes: `/completion`, `/props`, `/slots`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from antiphon import __version__
from antiphon.api.llama_cpp.answer import begin
from antiphon.api.llama_cpp.request import LlamaCompletionRequest
from antiphon.api.llama_cpp.shapes import Props, Slot
from antiphon.api.shapes import encoder
from antiphon.api.tokens import tokenizer_info
from antiphon.http.context import context_of
from antiphon.http.openapi import json_body
from antiphon.http.reply import answer

router = APIRouter()


@router.post("/completion", openapi_extra=json_body(LlamaCompletionRequest))
async def complete(request: Request) -> Response:
    """Continue a text."""
    return await answer(request, "llama_completion", begin)


@router.get("/props")
async def get_props(request: Request) -> Response:
    """The server's settings."""
    context = context_of(request)
    info = tokenizer_info(context)
    settings = {"n_ctx": info.model_max_length, "params": dict(context.model.generation_defaults)}
    props = Props(
        default_generation_settings=settings,
        total_slots=context.engine.max_num_sequences,
        model_path=context.model.name,
        model_alias=context.model.name,
        chat_template=info.chat_template or "",
        bos_token=info.bos_token or "",
        eos_token=info.eos_token or "",
        build_info=f"antiphon {__version__}",
    )
    return Response(encoder.encode(props), media_type="application/json")


@router.get("/slots")
async def list_slots(request: Request) -> Response:
    """The answers that can be computed at once, and which of them are being computed."""
    context = context_of(request)
    running, length = context.engine.stats.running, context.facts().context_length
    slots = [Slot(index, length, index < running) for index in range(context.engine.max_num_sequences)]
    return Response(encoder.encode(slots), media_type="application/json")

"""Routes for operating the server: `/`, `/health`, `/ready`, `/metrics`, `/version`; vLLM's `/ping` and `/load`.

`/health` only says that the process answers; restart the process if it does not. `/ready` says whether to send
requests: it answers 503, with the reason, while the server is loading, draining, or without an engine.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from msgspec.json import encode

from antiphon import __version__
from antiphon.errors import NotReady
from antiphon.http.context import context_of
from antiphon.http.page import Page, wants_page
from antiphon.metrics import CONTENT_TYPE

router = APIRouter()

METRICS_PATH = "/metrics"


@router.get("/")
async def root(request: Request) -> Response:
    """The server's name, version, model and state; to a browser the chat page."""
    page: Page | None = request.app.state.page
    if page is not None and wants_page(request.scope):
        return page.index(request)
    context = context_of(request)
    told = {
        "name": "antiphon",
        "version": __version__,
        "model": context.model.name,
        "state": context.engine.state.value,
        "openai": "/v1",
        "ollama": "/api",
        "docs": "/docs",
    }
    headers = {} if page is None else {"Vary": "Accept"}
    return Response(encode(told), headers=headers, media_type="application/json")


@router.get("/ping")
@router.post("/ping")
async def ping(request: Request) -> Response:
    """Like `/health`, without a body."""
    return Response(media_type="text/plain")


@router.get("/load")
async def load(request: Request) -> Response:
    """The number of unfinished requests."""
    return Response(encode({"server_load": context_of(request).engine.counters.running}), media_type="application/json")


@router.get("/health")
async def health(request: Request) -> Response:
    """The server process is running."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/ready")
async def ready(request: Request) -> Response:
    """The engine accepts work; NotReady or EngineUnavailable, 503 with Retry-After, while it does not."""
    context = context_of(request)
    if not context.engine.is_ready:
        trouble = f": the last one died, {context.engine.trouble}" if context.engine.trouble else ""
        raise NotReady(f"The engine is {context.engine.state}{trouble}.", retry_after=2.0)
    context.engine.check_breakers()
    return Response(encode({"status": "ready", "model": context.model.name}), media_type="application/json")


@router.get(METRICS_PATH)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    context = context_of(request)
    await context.gpus.refresh()
    return Response(context.metrics.render(), media_type=CONTENT_TYPE)


@router.get("/version")
async def version(request: Request) -> Response:
    """Antiphon's version."""
    return Response(encode({"version": __version__}), media_type="application/json")

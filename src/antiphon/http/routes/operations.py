"""For those who run the server: `/health`, `/ready`, `/metrics`, `/version`.

`/health` says that the process answers, nothing more; restart it when it does not. `/ready` says whether to send it
work: it is 503 while loading, draining, or without an engine.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from msgspec.json import encode

from antiphon import __version__
from antiphon.errors import NotReady
from antiphon.http.context import context_of
from antiphon.metrics import CONTENT_TYPE

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> Response:
    """The front is alive."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/ready")
async def ready(request: Request) -> Response:
    """The engine takes work; NotReady, 503 with Retry-After, while it does not."""
    context = context_of(request)
    if not context.engine.is_ready:
        raise NotReady(f"The engine is {context.engine.state}.", retry_after=2.0)
    return Response(encode({"status": "ready", "model": context.model.name}), media_type="application/json")


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(context_of(request).metrics.render(), media_type=CONTENT_TYPE)


@router.get("/version")
async def version(request: Request) -> Response:
    """Antiphon's own."""
    return Response(encode({"version": __version__}), media_type="application/json")

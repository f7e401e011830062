"""`GET /v1/status`: how busy the server is, for people who use it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from antiphon.api.shapes import encoder
from antiphon.api.status import status_of
from antiphon.http.context import context_of

router = APIRouter()


@router.get("/v1/status")
async def get_status(request: Request) -> Response:
    """How busy the server is, and how fast an answer would be; 404 with `--no-status`."""
    context = context_of(request)
    if not context.settings.status:
        raise HTTPException(404)
    headers = {"Cache-Control": "no-store"}
    return Response(encoder.encode(status_of(context)), headers=headers, media_type="application/json")

"""`/admin`: the engines and the settings, for operators. These routes exist only if the server has admin keys.

`Authentication` asks for an admin key before any of them. An operation that takes longer than a moment is answered with
202 and its record; `GET /admin/operations/{id}` says how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from antiphon.engine.client import EngineView
from antiphon.errors import InvalidRequest
from antiphon.http.administration import Administration, Engines, Kind, Operation
from antiphon.http.context import context_of
from antiphon.http.peers import usage_report

router = APIRouter(prefix="/admin")

_MAX_DIGITS = 9


class NewEngine(BaseModel):
    """The query of a request for another engine."""

    address: str = Field(
        "", description="Where to start it, as in --engines; empty: on the server's machine, on --device."
    )


class Engine(msgspec.Struct, kw_only=True, tag_field="object", tag="engine"):
    """One engine."""

    id: int
    state: str  # loading, ready, restarting, draining, drained, failed or stopped
    address: str | None  # where it runs, as in --engines; null: on this machine, and no device was named
    pid: int | None
    threads: int | None
    generation: int
    running: int
    waiting: int
    tokens_owed: int
    kv_cache_usage: float | None  # 0 to 1
    restarts: int
    loading_fraction: float | None  # 0 to 1
    loading_phase: str | None
    trouble: str | None
    instruction_set: str | None
    fingerprint: str | None  # of its arithmetic
    model_fingerprint: str | None  # of what the model computes
    versions: dict[str, str]


class EngineList(msgspec.Struct, kw_only=True, tag_field="object", tag="list"):
    """All engines, and the latest operation."""

    data: list[Engine]
    operation: Operation | None


@router.get("/engines")
async def list_engines(request: Request) -> Response:
    """All engines with their state and load, and the latest operation."""
    administration = _administration(request)
    engines = [_engine(view) for view in administration.engines.engines()]
    return _json(EngineList(data=engines, operation=administration.latest))


@router.get("/usage")
async def get_usage(request: Request) -> Response:
    """What each key and each client has used here since the server started; `--peer` servers ask for it."""
    return _json(usage_report(context_of(request)))


@router.get("/operations/{operation_id}")
async def get_operation(request: Request, operation_id: str) -> Response:
    """An operation: whether it still runs, and how it ended."""
    return _json(_administration(request).operation(operation_id))


@router.post("/engines")
async def add_engine(request: Request) -> Response:
    """Start another engine with the model and settings of the others: here, or at `address`."""
    administration = _administration(request)
    address = request.query_params.get("address", "")
    return _answer(await administration.run("add", lambda: administration.engines.add_engine(address)))


@router.post("/engines/restart")
async def restart_all(request: Request) -> Response:
    """Restart all engines, one after the other."""
    administration = _administration(request)
    return _answer(await administration.run("restart_all", administration.engines.rolling_restart))


@router.delete("/engines/{engine_id}")
async def remove_engine(request: Request, engine_id: str) -> Response:
    """Stop an engine; its answers continue on another one."""
    return await _on_one(request, engine_id, "remove", lambda engines, engine: engines.remove_engine(engine))


@router.post("/engines/{engine_id}/drain")
async def drain_engine(request: Request, engine_id: str) -> Response:
    """Give an engine no more work; its answers continue on another one."""
    return await _on_one(request, engine_id, "drain", lambda engines, engine: engines.drain_engine(engine))


@router.post("/engines/{engine_id}/resume")
async def resume_engine(request: Request, engine_id: str) -> Response:
    """Give a drained engine work again."""

    async def resume(engines: Engines, engine: int) -> None:
        engines.resume_engine(engine)

    return await _on_one(request, engine_id, "resume", resume)


@router.post("/engines/{engine_id}/restart")
async def restart_engine(request: Request, engine_id: str) -> Response:
    """Replace an engine's process; no answer is lost."""
    return await _on_one(request, engine_id, "restart", lambda engines, engine: engines.restart_engine(engine))


@router.post("/reload")
async def reload(request: Request) -> Response:
    """Read the settings again: the file, the keys, the certificate, the model."""
    return _answer(await _administration(request).reload())


async def _on_one(
    request: Request,
    engine_id: str,
    kind: Kind,
    method: Callable[[Engines, int], Coroutine[Any, Any, object]],
) -> Response:
    administration = _administration(request)
    if not (engine_id.isascii() and engine_id.isdigit() and len(engine_id) <= _MAX_DIGITS):
        raise InvalidRequest("The id of an engine is a whole number; GET /admin/engines lists them.", param="engine_id")
    engine = int(engine_id)
    return _answer(await administration.run(kind, lambda: method(administration.engines, engine), engine))


def _administration(request: Request) -> Administration:
    return cast(Administration, request.app.state.administration)


def _engine(view: EngineView) -> Engine:
    fields = {field: getattr(view, field) for field in Engine.__struct_fields__}
    fields["state"] = str(view.state)
    fields["tokens_owed"] = round(view.tokens_owed)
    return Engine(**fields)


def _answer(operation: Operation) -> Response:
    """200 if the operation has ended, else 202."""
    return _json(operation, 202 if operation.status == "running" else 200)


def _json(answer: msgspec.Struct, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(answer), status, headers, media_type="application/json")

"""Builds the application from the endpoints.

Owns the list of routes and middleware. It does not know how the engine is started or where the model comes from; the
caller passes both. An application never changes: a reload builds another one (`live`).
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from types import ModuleType

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import Scope

from antiphon import __version__
from antiphon.api.context import Context, create_context
from antiphon.api.messages.errors import OVERLOADED_STATUS
from antiphon.api.messages.errors import error_body as messages_error_body
from antiphon.api.ollama.answer import error_body as ollama_error_body
from antiphon.api.served_model import ServedModel
from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.http import docs_page
from antiphon.http.administration import Administration
from antiphon.http.edge.access_log import AccessLog
from antiphon.http.edge.authentication import Authentication
from antiphon.http.edge.connections import BodyDeadline
from antiphon.http.edge.hosts import AllowedHosts, SameSite, is_loopback
from antiphon.http.edge.rate_limiting import RateLimiting
from antiphon.http.edge.request_id import RequestIds
from antiphon.http.edge.request_line import RequestLine
from antiphon.http.edge.response_counts import ResponseCounts
from antiphon.http.edge.security_headers import SecurityHeaders
from antiphon.http.edge.tracing import Tracing
from antiphon.http.errors import ErrorShape, add_error_handlers
from antiphon.http.ignored_fields import IgnoredFields
from antiphon.http.page import FOLDER, Page, read_page
from antiphon.http.reference import describe_routes
from antiphon.http.routes import (
    admin,
    chat,
    completions,
    llama_cpp,
    messages,
    models,
    ollama,
    operations,
    responses,
    simple,
    status,
    tokens,
)
from antiphon.tracing import Tracer

logger = logging.getLogger(__name__)


def create_app(
    model: ServedModel,
    engine: EngineClient,
    settings: ServerConfig,
    *,
    page_folder: Path = FOLDER,
    administration: Administration | None = None,
    memory_reserve: int = 0,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The ASGI application that serves `model` from `engine`; the engine may still be loading.

    `administration`: what the admin routes operate; by default only the engines. `memory_reserve`: bytes that the
    memory plan leaves free; 0: not known. `tracer`: exports traces of requests; None: none are made.
    """
    context = create_context(model, engine, settings, memory_reserve=memory_reserve, tracer=tracer)
    return app_of(context, administration or Administration(engine.operations), page_folder=page_folder)


def app_of(context: Context, administration: Administration, *, page_folder: Path = FOLDER) -> FastAPI:
    """The application for a context."""
    settings = context.settings
    app = FastAPI(
        title="Antiphon",
        version=__version__,
        summary="OpenAI's API for a language model on an ordinary machine",
        docs_url=None,  # FastAPI's page loads scripts from other servers
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    app.state.administration = administration
    page = app.state.page = _page(settings, page_folder)
    families: list[ModuleType] = [
        chat,
        completions,
        responses,
        messages,
        simple,
        tokens,
        ollama,
        llama_cpp,
        models,
        status,
        operations,
        docs_page,
    ]
    if settings.admin_keys:  # without one nobody may use these routes
        families.append(admin)
    for family in families:
        app.include_router(family.router)
    if page is not None:
        app.include_router(page.router())
    describe_routes(app)
    _surround(app, context, page)
    return app


def _page(settings: ServerConfig, folder: Path) -> Page | None:
    page = read_page(folder) if settings.page else None
    if settings.page and page is None:
        logger.info("the chat page has not been built (`make page` builds it), so / returns JSON")
    return page


def _surround(app: FastAPI, context: Context, page: Page | None) -> None:
    """The middleware, innermost first."""
    app.add_middleware(IgnoredFields)
    settings, metrics, rates = context.settings, context.metrics, context.rates
    app.add_middleware(BodyDeadline, seconds=settings.network_timeout)
    if rates:
        app.add_middleware(RateLimiting, rates=rates, metrics=metrics)
    if settings.api_keys or settings.admin_keys:
        app.add_middleware(
            Authentication,
            keys=settings.api_keys,
            metrics=metrics,
            is_open=partial(_is_open, page, settings.public_metrics),
            admin_keys=settings.admin_keys,
        )
    app.add_middleware(SameSite, origins=settings.allowed_origins)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=("*",),
        )
    local = is_loopback(settings.host)
    if settings.allowed_hosts or local:
        app.add_middleware(AllowedHosts, hosts=settings.allowed_hosts, local=local)
    shapes = {
        messages.PATH: ErrorShape(messages_error_body, OVERLOADED_STATUS),
        ollama.PATH: ErrorShape(ollama_error_body),
    }
    add_error_handlers(app, shapes)
    app.add_middleware(ResponseCounts, metrics=metrics)
    if context.tracer is not None:
        app.add_middleware(Tracing, tracer=context.tracer)
    app.add_middleware(AccessLog)
    app.add_middleware(RequestIds)
    app.add_middleware(RequestLine)
    app.add_middleware(SecurityHeaders)


def _is_open(page: Page | None, public_metrics: bool, scope: Scope) -> bool:
    """Whether a request needs no API key: for a file of the page, or for the metrics where they are public."""
    if public_metrics and scope["path"] == operations.METRICS_PATH and scope["method"] == "GET":
        return True
    return page is not None and page.is_open(scope)

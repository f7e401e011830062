"""Puts the endpoints together.

Owns the list of routes and what surrounds them. It promises nothing of its own and must not know how the engine is
started or where the model came from: whoever serves hands both over.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from antiphon import __version__
from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.http import chat, completions, docs_page, generate, models, operations, tokens
from antiphon.http.access_log import AccessLog
from antiphon.http.anthropic_messages import routes as messages
from antiphon.http.authentication import Authentication
from antiphon.http.connections import BodyDeadline
from antiphon.http.errors import add_error_handlers
from antiphon.http.front import Front, ServedModel
from antiphon.http.hosts import AllowedHosts
from antiphon.http.openai_responses import routes as responses
from antiphon.http.openai_responses.store import ResponseStore
from antiphon.http.rates import RateLimiting, Rates
from antiphon.http.reference import describe_routes
from antiphon.http.request_id import RequestIds
from antiphon.metrics import EngineFigures, Metrics


def create_app(model: ServedModel, engine: EngineClient, settings: ServerConfig) -> FastAPI:
    """The ASGI application that serves `model` from `engine`; the engine may still be loading."""
    app = FastAPI(
        title="Antiphon",
        version=__version__,
        summary="OpenAI's API, served on the machine you already have",
        docs_url=None,  # FastAPI's page for it loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    keys = settings.api_keys
    metrics = Metrics(__version__, model.name, lambda: engine_figures(engine), [key.name for key in keys])
    rates = Rates(keys, settings.requests_per_minute, settings.tokens_per_minute)
    kept = ResponseStore(settings.max_stored_responses, settings.max_stored_bytes)
    app.state.front = Front(model, engine, settings, metrics, rates, kept)
    for family in (chat, completions, responses, messages, generate, tokens, models, operations, docs_page):
        app.include_router(family.router)
    describe_routes(app)
    _surround(app, settings, metrics, rates)
    return app


def _surround(app: FastAPI, settings: ServerConfig, metrics: Metrics, rates: Rates) -> None:
    """What every request passes, innermost first."""
    app.add_middleware(BodyDeadline, seconds=settings.network_timeout)
    if rates:
        app.add_middleware(RateLimiting, rates=rates, metrics=metrics)
    if settings.api_keys:
        app.add_middleware(Authentication, keys=settings.api_keys, metrics=metrics)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=("*",),
        )
    if settings.allowed_hosts:
        app.add_middleware(AllowedHosts, hosts=settings.allowed_hosts)
    add_error_handlers(app, {messages.PATH: messages.error_body})
    app.add_middleware(AccessLog)
    app.add_middleware(RequestIds)


def engine_figures(engine: EngineClient) -> EngineFigures:
    """What the engine's client knows, in the metrics' words."""
    stats = engine.stats
    return EngineFigures(
        ready=engine.is_ready,
        restarts=engine.restarts,
        running=stats.running,
        waiting=stats.waiting,
        blocks_free=stats.blocks_free,
        blocks_cached=stats.blocks_cached,
        blocks_in_use=stats.blocks_in_use,
        steps=stats.step,
        step_seconds=stats.step_seconds,
        step_tokens=stats.step_tokens,
        computed_tokens=stats.num_computed_tokens,
        prefix_queries=stats.num_prefix_queries,
        prefix_hits=stats.num_prefix_hits,
        preemptions=stats.num_preemptions,
    )

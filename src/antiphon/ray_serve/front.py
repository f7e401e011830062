"""The front in a replica of Ray Serve: an ASGI application that starts with its first lifespan message.

Owns everything of one server but its socket: model, engines, and the FastAPI application that requests are passed to.
What the server does with connections is missing: their limits and time-outs, TLS, and the refusal of requests before
their body has arrived. Serve's proxies have their own. Runs on the event loop that Serve chose, which may be uvloop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.commands.engine_places import EnginePlaces
from antiphon.engine.client import EngineClient
from antiphon.errors import AntiphonError
from antiphon.http.app import create_app
from antiphon.loading.assembly import assemble
from antiphon.loading.model import resolve_model
from antiphon.ray_serve.settings import read_settings
from antiphon.terminal import console_on

logger = logging.getLogger(__name__)


class Front:
    """The application. Serve sends `lifespan.startup` before requests, and `lifespan.shutdown` after them."""

    def __init__(self, command_line: Sequence[str]) -> None:
        """`command_line`: the options of `antiphon serve`."""
        self._engine_config, self._settings = read_settings(command_line)
        self._app: ASGIApp | None = None
        self._open = AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._app is not None, "a request before the start"
        await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except AntiphonError as error:
            await self._open.aclose()
            logger.error("the server cannot start: %s", error.message)
            await send({"type": "lifespan.startup.failed", "message": error.message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._open.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        """Find the model and start its engines; returns when they are ready."""
        config, settings = self._engine_config, self._settings
        console = console_on(stderr=True)
        found = await asyncio.to_thread(
            resolve_model, config.model, console, hub=settings.hub, offline=settings.offline
        )
        places = EnginePlaces(lambda: settings)
        self._open.push_async_callback(places.close)
        elsewhere = await places.memory_elsewhere(config)
        assembly = await asyncio.to_thread(assemble, found, config, settings, None, elsewhere)
        self._open.callback(assembly.checkpoint.files.close)
        self._open.callback(assembly.model.text.close)
        engine = EngineClient(assembly.engine, settings, assembly.model.text.vocabulary, launchers=places.launchers)
        self._app = create_app(assembly.model, engine, settings)
        self._open.push_async_callback(engine.stop)
        await engine.start()
        await engine.wait_ready()

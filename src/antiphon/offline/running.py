"""An engine process and everything in front of it but a socket, for as long as a block runs.

Owns the order in which they start and end. It promises that nothing is left behind the block, however it was left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.http.app import create_app
from antiphon.http.front import Front
from antiphon.loading.assembly import assemble
from antiphon.loading.model import Found


@asynccontextmanager
async def running_app(found: Found, engine_config: EngineConfig, settings: ServerConfig) -> AsyncIterator[FastAPI]:
    """The application that a server would serve, its engine ready; nobody listens.

    Raises:
        CheckpointError, ConfigError, EngineDied: why the model cannot be had.
    """
    assembly = assemble(found, engine_config, settings)
    engine = EngineClient(assembly.engine, settings, assembly.model.text.vocabulary)
    app = create_app(assembly.model, engine, settings)
    try:
        await engine.start()
        await engine.wait_ready()
        yield app
    finally:
        await engine.drain(0)
        await engine.stop()
        front_of_app(app).threads.shutdown(wait=False)
        assembly.model.text.close()


def front_of_app(app: FastAPI) -> Front:
    """What the application's endpoints share."""
    front = app.state.front
    assert isinstance(front, Front)
    return front

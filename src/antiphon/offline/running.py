"""An engine process and everything in front of it but a server, for as long as a block runs.

Owns the order in which they start and end. It promises that nothing is left behind the block, however it was left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from antiphon.api.context import Context, create_context
from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.loading.assembly import assemble
from antiphon.loading.model import Found


@asynccontextmanager
async def running_context(found: Found, engine_config: EngineConfig, settings: ServerConfig) -> AsyncIterator[Context]:
    """What serves requests for a model, its engine ready.

    Raises:
        CheckpointError, ConfigError, EngineDied: why the model cannot be had.
    """
    assembly = assemble(found, engine_config, settings)
    engine = EngineClient(assembly.engine, settings, assembly.model.text.vocabulary)
    context = create_context(assembly.model, engine, settings)
    try:
        await engine.start()
        await engine.wait_ready()
        yield context
    finally:
        await engine.drain(0)
        await engine.stop()
        context.threads.shutdown(wait=False)
        assembly.model.text.close()
        assembly.checkpoint.files.close()  # not before the last engine is gone, which inherits them

"""An engine process and everything in front of it except a server, for the duration of a block.

Owns the order in which they start and end. It promises that nothing is left after the block, however it ends.
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
    """A context that serves requests for a model, with its engine ready.

    Raises:
        CheckpointError, ConfigError, EngineDied: the model cannot be loaded or served.
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
        context.threads.close()
        assembly.model.text.close()
        assembly.checkpoint.files.close()  # not before the last engine is gone, which inherits them

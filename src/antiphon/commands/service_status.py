"""Reports the state of a running server to systemd.

The server's event loop feeds the watchdog, so a front that hangs is restarted; the supervisor restarts an engine
that hangs. Once the engine was given up, it does not any more: a new start of the whole service is then all
that can help.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from antiphon.engine.client import EngineClient, EngineState
from antiphon.systemd import Systemd

_INTERVAL = 1.0  # seconds between two looks


@asynccontextmanager
async def reported(engine: EngineClient, systemd: Systemd) -> AsyncIterator[None]:
    """Report the state for the time of the block."""
    if not systemd.listens:
        yield
        return
    reporting = asyncio.create_task(_report(engine, systemd), name="systemd-status")
    try:
        yield
    finally:
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
        systemd.stopping()


async def _report(engine: EngineClient, systemd: Systemd) -> None:
    interval = min(_INTERVAL, (systemd.watchdog_seconds or _INTERVAL * 3) / 3)
    announced: set[EngineState] = set()
    while True:
        state = engine.state
        if state is EngineState.READY and state not in announced:
            systemd.ready()
        if state is EngineState.DRAINING and state not in announced:
            systemd.stopping()
        announced.add(state)
        systemd.status(_status(engine))
        if systemd.watchdog_seconds and state is not EngineState.FAILED:
            systemd.alive()
        await asyncio.sleep(interval)


def _status(engine: EngineClient) -> str:
    running = engine.counters.running
    match engine.state:
        case EngineState.LOADING:
            progress = f", {engine.loading.fraction:.0%}" if engine.loading else ""
            return f"loading the model{progress}"
        case EngineState.READY:
            return f"serving, {running} {'request' if running == 1 else 'requests'} unfinished"
        case EngineState.RESTARTING:
            return f"restarting the engine: {engine.trouble}"
        case EngineState.DRAINING | EngineState.DRAINED:
            return f"shutting down, {running} unfinished"
        case EngineState.FAILED:
            return "the engine failed and was given up"
        case EngineState.STOPPED:
            return "stopped"

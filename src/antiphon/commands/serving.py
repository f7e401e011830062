"""A server from start to end: socket, model's text, engine, HTTP, and what it prints.

Owns the order of steps: the port is taken first, so that a port in use is found before seconds of loading; HTTP is
served from then on, `/ready` with 503 until the engine is ready. `serve` runs this in the foreground, `chat MODEL`
beside its own conversation. Messages go to stderr; the command to paste and the access log go to stdout.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from antiphon import __version__
from antiphon.commands.engine_places import EnginePlaces
from antiphon.commands.logs import dropped_lines, set_up_logging
from antiphon.commands.reloading import Reloader, Reread, Served
from antiphon.commands.service_status import reported
from antiphon.commands.startup import (
    curl_line,
    cut_note,
    open_note,
    quantization_note,
    short_keys_note,
    startup_line,
)
from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.wire import Ready
from antiphon.http.administration import Administration
from antiphon.http.app import create_app
from antiphon.http.certificate import check_tls
from antiphon.http.listening import allow_open_files
from antiphon.http.server import Server, StopSignals, listen, url_of
from antiphon.loading.assembly import Assembly, assemble
from antiphon.loading.model import Found, findings, resolve_model
from antiphon.systemd import Systemd
from antiphon.terminal import console_on, print_note, printable
from antiphon.tracing import open_tracer

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has started."""

    url: str
    model_name: str
    ready: bool  # else it was stopped while the model was loading
    stopped: asyncio.Task[None]  # done when the server has ended
    has_page: bool = False  # whether a browser gets the chat page at `url`


def run(engine: EngineConfig, settings: ServerConfig, *, reread: Reread | None = None) -> None:
    """Serve until stopped. `reread` reads the settings again for a reload; None: this server cannot be reloaded.

    Raises:
        KeyboardInterrupt: Ctrl-C came before the model was loaded.
    """
    console = console_on(stderr=True)
    set_up_logging(settings, console)
    # Before there is an event loop: a download may take long, and Ctrl-C must end it at once.
    found = resolve_model(engine.model, console, hub=settings.hub, offline=settings.offline)
    asyncio.run(_serve(found, engine, settings, console, reread))


async def _serve(
    found: Found, engine: EngineConfig, settings: ServerConfig, console: Console, reread: Reread | None
) -> None:
    with StopSignals() as signals:
        async with running(found, engine, settings, console, signals, reread) as server:
            if server.ready:
                _greet(server, settings, console)
            await server.stopped
    if not server.ready:
        console.print("stopped before the model was loaded")
        if signals.interrupted:
            raise KeyboardInterrupt


def _greet(server: Running, settings: ServerConfig, console: Console) -> None:
    title = Text(printable(f"Serving {server.model_name} on {server.url}"), style="bold")
    page = f"Chat page: {server.url}/\n" if server.has_page else ""
    console.print("\n", title, "  (Ctrl-C to stop)\n", page, "To try the API:\n", sep="", soft_wrap=True)
    # Plain, whole and on stdout, so that it can be copied or piped.
    sys.stdout.write(curl_line(server.url, server.model_name, has_keys=bool(settings.api_keys)) + "\n")
    sys.stdout.flush()


@asynccontextmanager
async def running(
    found: Found,
    engine_config: EngineConfig,
    settings: ServerConfig,
    console: Console,
    signals: StopSignals | None = None,
    reread: Reread | None = None,
) -> AsyncIterator[Running]:
    """A ready server for the time of the block; everything ends with the block, and the server by `signals`.

    Raises:
        ConfigError, CheckpointError: the address cannot be used, or the model cannot be served.
        EngineDied: the engine does not start.
    """
    check_tls(settings)
    tracer = open_tracer(settings.otlp_traces_endpoint, __version__)
    allow_open_files(settings.max_connections)
    listener = listen(settings.host, settings.port)
    # Now, since a server that is stopped while it is loading closes the socket.
    url = url_of(listener, secure=bool(settings.ssl_certfile))
    places = EnginePlaces(lambda: settings)
    elsewhere = await places.memory_elsewhere(engine_config)
    assembly = assemble(found, engine_config, settings, elsewhere=elsewhere)
    model = assembly.model
    engine = EngineClient(assembly.engine, settings, model.text.vocabulary, launchers=places.launchers)
    systemd = Systemd()
    served = Served(found, engine_config, assembly)
    reloader = Reloader(reread, served, settings, engine, console, systemd) if reread else None
    administration = Administration(engine.operations, reloader.reload if reloader else None)
    reserve = 0 if engine_config.fake else assembly.memory_reserve
    app = create_app(model, engine, settings, administration=administration, memory_reserve=reserve, tracer=tracer)
    app.state.context.metrics.watch_dropped_lines(dropped_lines)
    server = Server(app, engine, settings)
    if reloader:
        reloader.attach(server, administration)
    gc.freeze()  # what is loaded by now stays, so no garbage collection during a request has to walk over it
    if signals is not None:
        signals.call(server.begin_shutdown)
    await engine.start()
    serving = asyncio.create_task(_serve_http(server, listener))
    async with reported(engine, systemd):
        try:
            ready = await _ready_or_stopped(engine, serving, console)
            if ready and engine.info is not None:
                _print_start(console, engine.info, assembly, engine_config, settings)
            if ready and reloader and signals is not None:
                signals.call_to_reload(administration.reload_soon)
            yield Running(url, model.name, ready, serving, has_page=app.state.page is not None)
        finally:
            await administration.stop()
            server.should_exit = True
            server.force_exit = server.force_exit or not engine.is_ready
            await engine.stop()
            await places.close()
            await serving
            # Not before the last engine is gone, which inherits the files.
            if reloader:
                await reloader.close()
            else:
                assembly.model.text.close()
                assembly.checkpoint.files.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)


def _print_start(
    console: Console, info: Ready, assembly: Assembly, engine_config: EngineConfig, settings: ServerConfig
) -> None:
    """What is served and how, and what looks wrong with it."""
    checkpoint = assembly.checkpoint
    line = startup_line(info, checkpoint, assembly.machine, *assembly.num_engines)
    console.print(printable(line), soft_wrap=True)
    notes = [
        open_note(settings.host, has_keys=bool(settings.api_keys)),
        cut_note(engine_config.context_length, info, checkpoint),
        quantization_note(engine_config.quantization, assembly.plan.quantization),
        short_keys_note(settings.api_keys),
        *findings(assembly.model.text, checkpoint),
    ]
    for note in filter(None, notes):
        print_note(console, str(note))


async def _serve_http(server: Server, listener: socket.socket) -> None:
    await server.serve(sockets=[listener])


async def _ready_or_stopped(engine: EngineClient, serving: asyncio.Task[None], console: Console) -> bool:
    """Show progress until the engine is ready (True) or the server is stopped (False)."""
    ready = asyncio.create_task(engine.wait_ready())
    try:
        await _show_loading(engine, (ready, serving), console)
        if ready.done():
            ready.result()
        return ready.done() and engine.state not in (EngineState.DRAINING, EngineState.STOPPED)
    finally:
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)  # else asyncio warns of an error nobody looked at


async def _show_loading(engine: EngineClient, either: Sequence[asyncio.Task[Any]], console: Console) -> None:
    """Show the progress of loading until one of the tasks is done."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("starting the engine", total=1.0)
        while not any(task.done() for task in either):
            if engine.loading is not None:
                progress.update(bar, completed=engine.loading.fraction, description=engine.loading.phase)
            await asyncio.wait(either, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)

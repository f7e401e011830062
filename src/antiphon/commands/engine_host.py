"""`antiphon engine-host`: its options, and the host from its socket to its end. The host itself is in `engine_host`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.commands.completion import model_names, one_of
from antiphon.commands.pull import HubOption, OfflineOption
from antiphon.config import LOG_LEVELS, MAX_ENGINES, MAX_THREADS, ServerConfig
from antiphon.engine.remote.address import DEFAULT_PORT, HostAddress
from antiphon.engine_secret import read_engine_secret
from antiphon.errors import ConfigError

if TYPE_CHECKING:
    import socket

    from rich.console import Console

    from antiphon.engine_host.host import EngineHost

_DEFAULTS = ServerConfig()


def engine_host(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The only model to run, as in serve; without it, whatever the servers serve.",
            autocompletion=model_names,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="ANTIPHON_HOST")] = _DEFAULTS.host,
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0: any free one.", envvar="ANTIPHON_ENGINE_HOST_PORT")
    ] = DEFAULT_PORT,
    engine_secret_file: Annotated[
        str,
        typer.Option(
            envvar="ANTIPHON_ENGINE_SECRET_FILE",
            help="A file with the secret that servers must know; without it, ANTIPHON_ENGINE_SECRET is used.",
        ),
    ] = "",
    engine_secret: Annotated[
        str, typer.Option(envvar="ANTIPHON_ENGINE_SECRET", hidden=True, help="The secret itself.")
    ] = "",
    ssl_certfile: Annotated[
        str, typer.Option(help="Certificate chain in PEM: encrypt connections.", envvar="ANTIPHON_SSL_CERTFILE")
    ] = "",
    ssl_keyfile: Annotated[
        str,
        typer.Option(help="Private key in PEM, if it is not in the certificate's file.", envvar="ANTIPHON_SSL_KEYFILE"),
    ] = "",
    engines: Annotated[
        int,
        typer.Option(
            help="Engines among which the cores are divided; 0: one for each NUMA node.", min=0, max=MAX_ENGINES
        ),
    ] = 0,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", "-t", help="Threads of each engine; 0: one for each of its cores.", min=0, max=MAX_THREADS
        ),
    ] = 0,
    hub: HubOption = _DEFAULTS.hub,
    offline: OfflineOption = _DEFAULTS.offline,
    log_level: Annotated[
        str,
        typer.Option(help=f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}.", autocompletion=one_of(LOG_LEVELS)),
    ] = _DEFAULTS.log_level,
) -> None:
    """Run engines on this machine for servers on other machines (antiphon serve --engines tcp://THIS-MACHINE:8010).

    An engine is started when a server asks for one, and ends with the server's connection. The model is downloaded
    here if it is a name, and must be the same as the server's.

    [bold]Examples[/bold]

      antiphon engine-host --host 0.0.0.0 --engine-secret-file secret

      antiphon engine-host deepseek-r1:1.5b --host 0.0.0.0 --engine-secret-file secret --engines 2

      antiphon engine-host --host 0.0.0.0 --engine-secret-file secret --ssl-certfile cert.pem --ssl-keyfile key.pem
    """
    import asyncio

    from antiphon.commands.terminal_log import set_up_messages
    from antiphon.engine_host.host import EngineHost, Machine, listen
    from antiphon.engine_host.models import Models
    from antiphon.http.certificate import load_certificate
    from antiphon.machine import default_engines, see_processors
    from antiphon.terminal import console_on

    settings = ServerConfig(
        host=host, port=port, ssl_certfile=ssl_certfile, ssl_keyfile=ssl_keyfile, log_level=log_level
    )
    secret = read_engine_secret(engine_secret, engine_secret_file)
    if not secret:
        raise ConfigError(
            "servers must know a secret: give it with --engine-secret-file; `openssl rand -hex 32` makes a good one"
        )
    console = console_on(stderr=True)
    set_up_messages(log_level, console)
    certificate = load_certificate(settings)
    listener = listen(host, port)
    if model:  # before there is an event loop: a download may take long, and Ctrl-C must end it at once
        from antiphon.loading.model import resolve_model

        resolve_model(model, console, hub=hub, offline=offline)
    machine = Machine(engines or default_engines(see_processors(), threads), threads)
    models = Models(console, only=model or "", hub=hub, offline=offline)
    tls = certificate.context if certificate else None
    _greet(listener, console, is_encrypted=tls is not None)
    asyncio.run(_serve(EngineHost(secret, models, machine, tls=tls), listener))


def _greet(listener: socket.socket, console: Console, *, is_encrypted: bool) -> None:
    from antiphon.terminal import print_note, printable

    host, port = listener.getsockname()[:2]
    address = HostAddress(host, port, is_encrypted)
    console.print(printable(f"Running engines for servers, on {address}  (Ctrl-C to stop)"), soft_wrap=True)
    if not is_encrypted and host != "::1" and not host.startswith("127."):
        print_note(console, "connections are authenticated and not encrypted; --ssl-certfile encrypts them")


async def _serve(engine_host: EngineHost, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    import asyncio
    import signal

    serving = asyncio.create_task(engine_host.serve(listener))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        pass
    finally:
        listener.close()

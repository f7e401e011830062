"""`antiphon proxy-config`: writes the configuration of a reverse proxy in front of several servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.commands.completion import one_of
from antiphon.config import ServerConfig
from antiphon.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.proxies.settings import ProxySettings

_PROXIES = ("nginx", "haproxy")
_SERVERS, _CLIENTS, _PROCESS = "Servers", "Clients", "Proxy"
_SERVER = ServerConfig()
_USERS = {"nginx": "www-data", "haproxy": "haproxy"}  # of Debian's packages


def proxy_config(
    proxy: Annotated[
        str, typer.Argument(metavar="nginx|haproxy", help="nginx or haproxy.", autocompletion=one_of(_PROXIES))
    ],
    backend: Annotated[
        list[str],
        typer.Option(
            help="Address of a server: host:port, [IPv6]:port or unix:/path. Required; give it once for each server.",
            rich_help_panel=_SERVERS,
        ),
    ],
    affinity: Annotated[
        str,
        typer.Option(
            help="none: requests go to the least busy server. prefix: conversations that begin the same go to the "
            "same server (HAProxy).",
            autocompletion=one_of(("none", "prefix")),
            rich_help_panel=_SERVERS,
        ),
    ] = "none",
    nameserver: Annotated[
        str,
        typer.Option(
            help="DNS server, such as 10.0.0.1:53, that is asked again and again for the backends' names (HAProxy).",
            rich_help_panel=_SERVERS,
        ),
    ] = "",
    max_body_bytes: Annotated[
        int,
        typer.Option(
            "--max-body-bytes",
            "--max-body-size",
            help="As in antiphon serve, on each server.",
            rich_help_panel=_SERVERS,
        ),
    ] = _SERVER.max_body_bytes,
    max_connections: Annotated[
        int, typer.Option(help="As in antiphon serve, on each server.", rich_help_panel=_SERVERS)
    ] = _SERVER.max_connections,
    max_wait: Annotated[
        float, typer.Option(help="As in antiphon serve, on each server.", rich_help_panel=_SERVERS)
    ] = _SERVER.max_wait,
    network_timeout: Annotated[
        float, typer.Option(help="As in antiphon serve, on each server.", rich_help_panel=_SERVERS)
    ] = _SERVER.network_timeout,
    keep_alive_timeout: Annotated[
        float, typer.Option(help="As in antiphon serve, on each server.", rich_help_panel=_SERVERS)
    ] = _SERVER.keep_alive_timeout,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            help="Address to listen on; a port alone, or *:port, is every IPv4 interface. May be given several times.",
            show_default="127.0.0.1:8080, with --certificate 443",
            rich_help_panel=_CLIENTS,
        ),
    ] = None,
    server_name: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name that clients use; others are refused. May be given several times.",
            show_default="any",
            rich_help_panel=_CLIENTS,
        ),
    ] = None,
    certificate: Annotated[
        str,
        typer.Option(
            "--certificate", "--ssl-certfile", help="Certificate chain in PEM: serve HTTPS.", rich_help_panel=_CLIENTS
        ),
    ] = "",
    key: Annotated[
        str,
        typer.Option(
            "--key",
            "--ssl-keyfile",
            help="Private key in PEM, if it is not in the certificate's file.",
            rich_help_panel=_CLIENTS,
        ),
    ] = "",
    path: Annotated[str, typer.Option(help="Serve below this path, such as /chat/.", rich_help_panel=_CLIENTS)] = "/",
    answer_timeout: Annotated[
        float,
        typer.Option(help="Seconds for a whole answer. Streams may take any time.", rich_help_panel=_CLIENTS),
    ] = 3600.0,
    drain_seconds: Annotated[
        float,
        typer.Option(
            help="Seconds for which streams may continue after the proxy is reloaded or stopped.",
            rich_help_panel=_PROCESS,
        ),
    ] = 3600.0,
    metrics_listen: Annotated[
        str,
        typer.Option(help="Address of the proxy's own metrics; off: none.", rich_help_panel=_PROCESS),
    ] = "127.0.0.1:8404",
    runtime_dir: Annotated[
        str,
        typer.Option(
            help="Folder for the process id, the runtime socket and temporary files.",
            show_default="that of Debian's package",
            rich_help_panel=_PROCESS,
        ),
    ] = "",
    user: Annotated[
        str | None,
        typer.Option(
            help='User that the proxy runs as, if root starts it; "": the user that starts it.',
            show_default="www-data for nginx, haproxy for HAProxy",
            rich_help_panel=_PROCESS,
        ),
    ] = None,
    access_log: Annotated[
        str, typer.Option(help="File for nginx's access log.", show_default="none", rich_help_panel=_PROCESS)
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this file.", show_default="standard output"),
    ] = None,
) -> None:
    """Print a complete configuration of nginx or HAProxy for several servers.

    Requests go to the least busy server. If it is full, one other server is tried. Streams are not buffered, and
    reloading the proxy does not interrupt them. Comments in the file give the reason for each setting.

    \b
    Examples:
      antiphon proxy-config haproxy --backend 10.0.0.5:8000 -o haproxy.cfg
      antiphon proxy-config nginx --backend 10.0.0.5:8000 --backend 10.0.0.6:8000
      antiphon proxy-config nginx --backend 10.0.0.5:8000 --certificate /chat.pem
    """
    from antiphon.proxies.addresses import backend_address, listen_address
    from antiphon.proxies.addresses import server_name as checked_name
    from antiphon.proxies.settings import ProxySettings

    if proxy not in _PROXIES:
        raise typer.BadParameter(f"{proxy!r} is not one of {', '.join(_PROXIES)}", param_hint="PROXY")
    settings = ProxySettings(
        backends=tuple(backend_address("--backend", each) for each in backend),
        listen=tuple(listen_address("--listen", each) for each in listen or [_default_listen(certificate)]),
        server_names=tuple(checked_name("--server-name", each) for each in server_name or ()),
        certificate=certificate,
        key=key,
        path=path,
        affinity=affinity,
        nameserver=backend_address("--nameserver", nameserver) if nameserver else None,
        answer_timeout=answer_timeout,
        drain_seconds=drain_seconds,
        metrics_listen=None if metrics_listen == "off" else listen_address("--metrics-listen", metrics_listen),
        runtime_dir=runtime_dir,
        user=_USERS[proxy] if user is None else user,
        access_log=access_log,
        max_body_bytes=max_body_bytes,
        max_connections=max_connections,
        max_wait=max_wait,
        network_timeout=network_timeout,
        keep_alive_timeout=keep_alive_timeout,
    )
    _write(_text(proxy, settings), output)


def _default_listen(certificate: str) -> str:
    """Keys are sent in every request, so without a certificate only this machine can connect."""
    return "443" if certificate else "127.0.0.1:8080"


def _text(proxy: str, settings: ProxySettings) -> str:
    from antiphon.proxies.haproxy import haproxy_cfg
    from antiphon.proxies.header import header
    from antiphon.proxies.nginx import nginx_conf

    write = nginx_conf if proxy == "nginx" else haproxy_cfg
    return header(proxy, settings) + write(settings)


def _write(text: str, output: Path | None) -> None:
    from antiphon.replacing import replacing

    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with replacing(output, lambda _: None) as part:
            part.write_text(text)
            part.chmod(0o644)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror}") from None

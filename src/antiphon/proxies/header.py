"""The comment at the top of a generated file: how to start the servers, check the file, and load it."""

from __future__ import annotations

from antiphon import __version__
from antiphon.proxies.addresses import Address
from antiphon.proxies.settings import ProxySettings

_COMMANDS = {
    "nginx": ("nginx -t -c FILE", "nginx -c FILE", "nginx -s reload"),
    "haproxy": ("haproxy -c -f FILE", "haproxy -W -f FILE", "kill -USR2 PID_OF_THE_MASTER"),
}


def header(proxy: str, settings: ProxySettings) -> str:
    """The comment, with an empty line after it."""
    check, start, reload = _COMMANDS[proxy]
    lines = [
        f"Written by antiphon {__version__}: antiphon proxy-config {proxy}. See docs/proxies.md.",
        "",
        f"Check:  {check}",
        f"Start:  {start}",
        f"Reload: {reload}",
        "",
        "Start each server like this, with the proxy's address as the servers see it:",
        f"    FORWARDED_ALLOW_IPS=ADDRESS_OF_THE_PROXY antiphon serve MODEL {_serve_options(settings)}",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"


def _serve_options(settings: ProxySettings) -> str:
    options = [f"--host {_host(settings.backends[0])}"]
    if settings.server_names:
        options.append(f"--allowed-hosts {','.join(settings.server_names)}")
    options += [
        f"--max-body-bytes {settings.max_body_bytes}",
        f"--max-connections {settings.max_connections}",
        f"--keep-alive-timeout {settings.keep_alive_timeout:g}",
    ]
    return " ".join(options)


def _host(backend: Address) -> str:
    return backend.host or "127.0.0.1"

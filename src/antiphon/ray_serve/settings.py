"""Reads the arguments of the application as if they were typed for `antiphon serve`, with the same checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import typer

from antiphon import cli
from antiphon.commands.serve import ServeCommand, Settings
from antiphon.errors import ConfigError

_USELESS = ("host", "port", "ssl_certfile", "ssl_keyfile", "config")  # Serve's proxies have the sockets
_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__base__)  # click's, wherever typer keeps it


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments as they would be typed for `antiphon serve`. Raises ConfigError for what has no meaning here."""
    typed: list[str] = []
    for key, value in arguments.items():
        name = key.replace("_", "-")
        if name.replace("-", "_") in _USELESS:
            raise ConfigError(f"{key} has no meaning here: Ray Serve's own settings have the address and certificates")
        text = str(value)
        if name == "model":
            typed.insert(0, text)
        elif text.lower() in ("true", "false"):
            typed.append(f"--{name}" if text.lower() == "true" else f"--no-{name}")
        else:
            typed.append(f"--{name}={text}")
    return typed


def read_settings(arguments: Sequence[str]) -> Settings:
    """The settings that a command line of `serve` means, with the environment.

    Raises:
        ConfigError: it is not valid, or there are engines in the front, which is one of many processes on its node.
    """
    command: Any = typer.main.get_command(cli.app)
    try:
        engine, server = cast(ServeCommand, command.commands["serve"]).read("serve", list(arguments))
    except _USAGE_ERROR as error:
        raise ConfigError(cast(Any, error).format_message()) from None
    if engine.num_local_engines:
        raise ConfigError("engines is not set, or has engines here; give an address, as engines=ray://auto?num_cpus=8")
    if server.peers:
        raise ConfigError("peers cannot be used: clients do not reach fronts of Ray Serve directly")
    return engine, server

"""Finds the launcher for an address. The place to add another way to run engines: a scheme and its launcher."""

from __future__ import annotations

from antiphon.config import ServerConfig
from antiphon.engine.fleet.launching import HERE, Launcher, Launchers
from antiphon.engine.fleet.process import LocalLauncher
from antiphon.errors import ConfigError


def launchers_for(settings: ServerConfig) -> Launchers:
    """A function from addresses to launchers, with the settings of this server."""

    def launcher_at(address: str) -> Launcher:
        if address == HERE:
            return LocalLauncher()
        raise ConfigError(f"engines cannot run at {address!r}")

    return launcher_at

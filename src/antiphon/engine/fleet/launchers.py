"""Finds the launcher for an address. The place to add another way to run engines: a scheme and its launcher."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from antiphon.config import ServerConfig
from antiphon.engine.fleet.launching import HERE, Launcher, LaunchError, Launchers
from antiphon.engine.fleet.process import LocalLauncher
from antiphon.engine.fleet.remote import HostAccess, RemoteLauncher, host_welcome
from antiphon.engine.remote.address import HostAddress, parse_address
from antiphon.engine.remote.messages import Welcome
from antiphon.errors import ConfigError

logger = logging.getLogger(__name__)


def launchers_for(
    settings: Callable[[], ServerConfig], others: Mapping[str, Launchers] = MappingProxyType({})
) -> Launchers:
    """A function from addresses to launchers, with the settings that the server has at that moment.

    `others`: what finds launchers for addresses with schemes that are not known here, as "ray" of `ray://auto`.
    """

    def launcher_at(address: str) -> Launcher:
        if address == HERE:
            return LocalLauncher()
        if other := others.get(address.partition(":")[0]):
            return other(address)
        host = parse_address(address)
        return RemoteLauncher(host, host_access(host, settings(), lambda: settings().hang_timeout))

    return launcher_at


def host_access(host: HostAddress, settings: ServerConfig, patience: Callable[[], float]) -> HostAccess:
    """What it takes to use this host. Raises ConfigError if a setting for it is missing, or a file cannot be used."""
    if not settings.engine_secret:
        raise ConfigError(f"--engines {host}: engines on other machines need --engine-secret-file")
    return HostAccess(settings.engine_secret, _tls_context(settings) if host.is_encrypted else None, patience)


async def free_memory_of_hosts(addresses: Sequence[str], settings: ServerConfig, device: str = "cpu") -> int | None:
    """Bytes of memory that there are for each engine on the host with the least; None: no host can be reached.

    `device`: of these engines, as in `EngineConfig`; of a GPU, its own memory counts. Hosts that cannot be reached are
    left out, with a warning.

    Raises:
        ConfigError: a setting is missing, or a host has another version or secret, or too few GPUs.
    """
    engines = Counter(map(parse_address, addresses))
    accesses = {host: host_access(host, settings, lambda: settings.hang_timeout) for host in engines}
    answers = await asyncio.gather(*(_welcome_of(host, access) for host, access in accesses.items()))
    free = [
        _share(host, answer, engines[host], device) for host, answer in zip(engines, answers, strict=True) if answer
    ]
    return min(free, default=None)


async def _welcome_of(host: HostAddress, access: HostAccess) -> Welcome | None:
    try:
        return await host_welcome(host, access)
    except LaunchError as error:
        logger.warning("%s: %s", host, error)
        return None


def _share(host: HostAddress, answer: Welcome, num_engines: int, device: str) -> int:
    """Bytes of its device's memory for each of these engines on a host."""
    if not device.startswith("cuda"):
        return answer.free_memory // num_engines
    gpus = answer.gpu_memory
    usable = sorted(gpus.values() if device == "cuda" else [gpus[device]] if device in gpus else [], reverse=True)
    if len(usable) < num_engines:
        names = ", ".join(gpus) or "none"
        raise ConfigError(
            f"{host}: --engines names {num_engines} {'engine' if num_engines == 1 else 'engines'} on {device} there; "
            f"of its GPUs, these can be used and have no engine: {names}"
        )
    return usable[num_engines - 1]


def _tls_context(settings: ServerConfig) -> ssl.SSLContext:
    """How to check the certificates of hosts: by the authorities in a file, else by those that the system trusts."""
    file = settings.engine_ssl_cafile
    try:
        if file:
            Path(file).read_bytes()
        return ssl.create_default_context(cafile=file or None)
    except ssl.SSLError:
        raise ConfigError(f"--engine-ssl-cafile {file}: is not a file of certificates in PEM format") from None
    except OSError as error:
        raise ConfigError(f"--engine-ssl-cafile {file} cannot be read: {error.strerror}") from None

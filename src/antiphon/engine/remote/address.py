"""Addresses of engine hosts: `tcp://HOST:PORT`, and `tls://HOST:PORT` for encrypted connections. A leaf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from antiphon.config import is_device
from antiphon.engine.remote import ray_address
from antiphon.errors import ConfigError

DEFAULT_PORT = 8010
SCHEMES = ("tcp", "tls")


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where an engine host listens."""

    host: str  # a name or an IP address; IPv6 without brackets
    port: int
    is_encrypted: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.is_encrypted else 'tcp'}://{host}:{self.port}"


def parse_address(text: str) -> HostAddress:
    """Raises ConfigError, which says what an address looks like."""
    try:
        parts = urlsplit(text)
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    rest = (parts.path, parts.query, parts.fragment, parts.username, parts.password)
    if parts.scheme not in SCHEMES or not parts.hostname or not port or any(rest):
        raise ConfigError(
            f"{text[:100]!r} is neither a device, such as cpu or cuda:0, nor the address of an engine host, such as "
            f"tcp://10.0.0.5:{DEFAULT_PORT}"
        )
    return HostAddress(parts.hostname, port, parts.scheme == "tls")


class Engines(NamedTuple):
    """What `--engines` asks for."""

    number: int  # of engines on this machine, on `--device`; 0: not given
    devices: tuple[str, ...]  # of more engines on this machine, as typed
    addresses: tuple[str, ...]  # of engines on other machines


def parse_engines(text: str) -> Engines:
    """Parse the value of `--engines`.

    As in `2`, `cuda:0,cpu` (both here), `tcp://a:8010,tcp://b:8010` (none here) or `2,tcp://a:8010,tcp://a:8010` (two
    here, and two there). On Ray (`ray_address`) one item may ask for several.

    Raises:
        ConfigError: an item is neither a number nor a device nor an address, or there are two numbers.
    """
    items = [item.strip() for item in text.split(",")]
    numbers = [item for item in items if item.isascii() and item.removeprefix("-").isdigit()]
    if len(numbers) > 1:
        raise ConfigError(f"--engines {text}: has more than one number of engines on this machine")
    devices = tuple(item for item in items if is_device(item))
    rest = [item for item in items if item not in numbers and item not in devices]
    try:
        addresses = tuple(address for item in rest for address in _addresses(item))
    except ConfigError as error:
        raise ConfigError(
            f"--engines {text}: {error.message}; cuda means all GPUs, and a number that many engines on this machine"
        ) from None
    return Engines(int(numbers[0]) if numbers else 0, devices, addresses)


def _addresses(item: str) -> list[str]:
    """An address for each engine that an item asks for. Raises ConfigError."""
    if item.startswith(f"{ray_address.SCHEME}:"):
        address, count = ray_address.parse_ray_address(item)
        return [str(address)] * count
    return [str(parse_address(item))]

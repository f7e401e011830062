"""Addresses of engines on a Ray cluster, as in `ray://auto?num_cpus=8`. A leaf, which knows nothing of Ray itself.

The part after `ray://` says how to find the cluster, in Ray's own words: `auto` is the cluster that this machine is a
node of, `HOST:PORT` the address of a cluster's head. What follows the question mark is what each engine needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode, urlsplit

from antiphon.config import MAX_ENGINES, MAX_THREADS
from antiphon.errors import ConfigError

SCHEME = "ray"
PLACEMENT_TIMEOUT = 300.0  # seconds; a cluster that adds machines takes minutes
_EXAMPLE = "ray://auto?num_cpus=8&count=2"


@dataclass(frozen=True, slots=True)
class RayAddress:
    """A Ray cluster, and what each engine on it needs."""

    cluster: str
    num_cpus: int  # that Ray reserves, and the threads that the engine has
    memory_gib: float = 0.0  # that Ray reserves; 0: what the server's plan for the model needs
    resources: tuple[tuple[str, float], ...] = ()  # other resources of nodes, by name
    placement_timeout: float = PLACEMENT_TIMEOUT  # seconds until a node with room for it must be found

    def __str__(self) -> str:
        """As `parse_ray_address` reads it, always in the same form."""
        options: list[tuple[str, str]] = [("num_cpus", str(self.num_cpus))]
        if self.memory_gib:
            options.append(("memory", f"{self.memory_gib:g}"))
        options += [("resource", f"{name}:{amount:g}") for name, amount in self.resources]
        if self.placement_timeout != PLACEMENT_TIMEOUT:
            options.append(("placement_timeout", f"{self.placement_timeout:g}"))
        return f"{SCHEME}://{self.cluster}?{urlencode(options, safe=':')}"

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * (1 << 30))


def parse_ray_address(text: str) -> tuple[RayAddress, int]:
    """An address, and the number of engines that it asks for (`count`, else 1).

    Raises:
        ConfigError: it has another form; says what an address looks like.
    """
    parts = urlsplit(text)
    if parts.scheme != SCHEME or not parts.netloc or parts.path or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"{text!r} is not the address of engines on Ray; one is like {_EXAMPLE}")
    address, count = RayAddress(parts.netloc, 0), 1
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        match name:
            case "num_cpus":
                address = replace(address, num_cpus=_whole(text, name, value, MAX_THREADS))
            case "count":
                count = _whole(text, name, value, MAX_ENGINES)
            case "memory":
                address = replace(address, memory_gib=_above_zero(text, name, value))
            case "resource":
                resource, _, amount = value.rpartition(":")
                if not resource:
                    raise ConfigError(f"{text}: resource is {value!r}; write NAME:AMOUNT")
                found = (resource, _above_zero(text, name, amount))
                address = replace(address, resources=(*address.resources, found))
            case "placement_timeout":
                address = replace(address, placement_timeout=_above_zero(text, name, value))
            case _:
                known = "num_cpus, count, memory, resource and placement_timeout"
                raise ConfigError(f"{text}: there is no {name!r}; after the question mark may come {known}")
    if not address.num_cpus:
        raise ConfigError(f"{text}: does not say how many CPUs each engine gets; one that does is like {_EXAMPLE}")
    return address, count


def _whole(text: str, name: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= most):
        raise ConfigError(f"{text}: {name} is {value!r}; it must be a whole number from 1 to {most:,}")
    return int(value)


def _above_zero(text: str, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{text}: {name} is {value!r}; it must be a number above 0")
    return number

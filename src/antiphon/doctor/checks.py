"""Which checks there are, for a machine, a model and a server, in the order in which they run."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from antiphon.config import ServerConfig
from antiphon.doctor import (
    activity,
    connection,
    gpu,
    limits,
    memory,
    network,
    processor,
    proxy,
    server,
    software,
    storage,
    surroundings,
)
from antiphon.doctor.examination import Check
from antiphon.doctor.host import Host
from antiphon.doctor.visit import Visit

_DEFAULTS = ServerConfig()


@dataclass(frozen=True, slots=True)
class Intentions:
    """The settings that a server on this machine would have, as far as checks depend on them."""

    host: str = _DEFAULTS.host
    port: int = _DEFAULTS.port
    threads: int = 0
    max_connections: int = _DEFAULTS.max_connections
    variables: Collection[str] = ()  # names of all settings in the environment


def machine_checks(host: Host, wanted: Intentions) -> list[Check]:
    """Everything about this machine that does not depend on a model."""
    return [
        Check("processor", "instruction set", partial(processor.instruction_sets, host)),
        Check("processor", "cores", partial(processor.cores, host, wanted.threads)),
        Check("processor", "kinds of cores", partial(processor.mixed_cores, host)),
        Check("processor", "frequency", partial(processor.frequency, host)),
        Check("processor", "load", partial(activity.load, host)),
        Check("memory", "free memory", partial(memory.free_memory, host)),
        Check("memory", "address space", partial(memory.address_space, host)),
        Check("memory", "swap", partial(memory.swap, host)),
        Check("memory", "overcommit", partial(memory.overcommit, host)),
        Check("memory", "out of memory", partial(memory.killed_first, host)),
        Check("memory", "NUMA", partial(memory.numa, host)),
        Check("memory", "huge pages", partial(memory.huge_pages, host)),
        Check("GPU", "GPUs", gpu.gpus),
        Check("limits", "open files", partial(limits.open_files, host, wanted.max_connections)),
        Check("limits", "processes", partial(limits.processes, host, wanted.threads)),
        Check("network", "port", partial(network.port, host, wanted.host, wanted.port)),
        Check("network", "proxy", partial(network.proxies, os.environ)),
        Check("disk", "downloads", partial(storage.room_for_downloads, os.environ)),
        Check("disk", "temporary files", partial(storage.temporary_files, os.environ)),
        Check("software", "Python", software.python),
        Check("software", "native library", software.native_library),
        Check("software", "arithmetic", software.arithmetic),
        Check("software", "packages", software.packages),
        Check("software", "environment", partial(software.variables, os.environ, wanted.variables)),
        Check("surroundings", "container", partial(surroundings.container, host)),
        Check("surroundings", "clock", partial(surroundings.clock, host)),
    ]


def server_checks(visit: Visit) -> list[Check]:
    """Everything about a running server that can be seen through its address."""
    return [
        Check("connection", "reachable", partial(connection.reachable, visit)),
        Check("connection", "TLS", partial(connection.tls, visit)),
        Check("connection", "HTTP", partial(connection.protocol, visit)),
        Check("connection", "latency", partial(connection.latency, visit)),
        Check("connection", "clock", partial(connection.clock, visit)),
        Check("server", "version", partial(server.version, visit)),
        Check("server", "key", partial(server.key, visit)),
        Check("server", "ready", partial(server.ready, visit)),
        Check("server", "load", partial(server.load, visit)),
        Check("server", "metrics", partial(server.metrics, visit)),
        Check("proxy", "kind", partial(proxy.proxy, visit)),
        Check("proxy", "large bodies", partial(proxy.large_bodies, visit)),
        Check("proxy", "streams", partial(proxy.streams, visit)),
    ]

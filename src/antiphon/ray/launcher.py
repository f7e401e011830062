"""Starts engines on a Ray cluster: a place from Ray, an engine from the host there.

Owns the pairing of an engine with the actor that runs its host: however the engine ends, its actor is released. All
else is as with other hosts (`engine.fleet.remote`): tokens go directly between server and host, and a host that is
silent, or whose connection ends, counts as an engine that died. The supervisor then asks for another place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.fleet.launching import EngineEnd, Launcher
from antiphon.engine.fleet.remote import HostAccess, RemoteEngine, RemoteLauncher
from antiphon.engine.remote.ray_address import RayAddress, parse_ray_address
from antiphon.engine.wire import FromEngine, Message
from antiphon.grammar import Vocabulary
from antiphon.ray.cluster import HostOnRay, RayCluster, check_installed


class RayLauncher:
    """Starts engines anywhere on one cluster."""

    def __init__(self, address: RayAddress, cluster: RayCluster, patience: Callable[[], float]) -> None:
        """`patience`: seconds after which a silent host counts as dead."""
        self._address = address
        self._cluster = cluster
        self._patience = patience

    @property
    def address(self) -> str:
        return str(self._address)

    async def start(self, config: EngineConfig, vocabulary: Vocabulary | None = None) -> EngineOnRay:
        """Wait for a place, and start an engine there. Raises as `Launcher.start` says."""
        host = await self._cluster.place(self._address, config.memory_bytes)
        try:
            access = HostAccess(host.secret, None, self._patience)
            engine = await RemoteLauncher(host.address, access).start(config, vocabulary)
        except BaseException:
            self._cluster.release(host)
            raise
        return EngineOnRay(engine, host, self._cluster)


class EngineOnRay:
    """An engine whose host is an actor (a `RunningEngine`)."""

    def __init__(self, engine: RemoteEngine, host: HostOnRay, cluster: RayCluster) -> None:
        self._engine = engine
        self._host = host
        self._cluster = cluster

    @property
    def pid(self) -> int | None:
        return None

    @property
    def progress(self) -> int:
        return self._engine.progress

    def starved_seconds(self) -> float:
        return self._engine.starved_seconds()

    def send(self, message: Message) -> None:
        """As `RunningEngine` says."""
        self._engine.send(message)

    def messages(self) -> AsyncIterator[FromEngine]:
        """As `RunningEngine` says."""
        return self._engine.messages()

    def kill(self) -> None:
        """As `RunningEngine` says."""
        self._engine.kill()

    async def wait(self) -> EngineEnd:
        """As `RunningEngine` says; the actor ends too.

        If the host is gone, so that nobody knows how the engine's process ended, no request is the reason.
        """
        try:
            end = await self._engine.wait()
        finally:
            self._cluster.release(self._host)
        return end if end.status is not None else replace(end, working_on=frozenset())


class RayClusters:
    """The clusters that one server uses, by their names, and the launchers for them."""

    def __init__(self, settings: Callable[[], ServerConfig]) -> None:
        self._settings = settings
        self._clusters: dict[str, RayCluster] = {}

    def launcher_at(self, address: str) -> Launcher:
        """The launcher for an address. Raises ConfigError if it is none, or Ray is not installed."""
        parsed, _ = parse_ray_address(address)
        return RayLauncher(parsed, self._cluster(parsed), lambda: self._settings().hang_timeout)

    async def memory_at(self, address: str) -> int | None:
        """Bytes of memory that an engine at this address can have on any node with room for it; None: not known.

        Raises:
            ConfigError: the address is none, or Ray is not installed.
            LaunchError: the cluster cannot be reached.
        """
        parsed, _ = parse_ray_address(address)
        if parsed.memory_bytes:
            return parsed.memory_bytes
        nodes = await self._cluster(parsed).nodes()
        shares = [
            node.memory_bytes // int(node.num_cpus // parsed.num_cpus)
            for node in nodes
            if node.num_cpus >= parsed.num_cpus and node.memory_bytes
        ]
        return min(shares, default=None)

    async def close(self) -> None:
        """End all drivers. Engines that still run end with them."""
        for cluster in self._clusters.values():
            await cluster.close()

    def _cluster(self, address: RayAddress) -> RayCluster:
        check_installed()
        if address.cluster not in self._clusters:
            settings = self._settings()
            self._clusters[address.cluster] = RayCluster(address.cluster, settings.hub, offline=settings.offline)
        return self._clusters[address.cluster]

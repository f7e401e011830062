"""The places where a server's engines may run: this machine, engine hosts, and Ray clusters.

Owns what has to be open for that while the server runs: the connection to Ray, which is made when an address needs it.
"""

from __future__ import annotations

from collections.abc import Callable

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.fleet.launchers import free_memory_of_hosts, launchers_for
from antiphon.engine.fleet.launching import LaunchError, Launchers
from antiphon.engine.remote.ray_address import SCHEME
from antiphon.errors import ConfigError
from antiphon.ray.launcher import RayClusters


class EnginePlaces:
    """`launchers` for an `EngineClient`. Use all of it on one event loop, and `close` it after the client's end."""

    def __init__(self, settings: Callable[[], ServerConfig]) -> None:
        """`settings`: as they are at a moment."""
        self._settings = settings
        self._rays = RayClusters(settings)
        self.launchers: Launchers = launchers_for(settings, {SCHEME: self._rays.launcher_at})

    async def memory_elsewhere(self, engine: EngineConfig) -> int | None:
        """Bytes of its device's memory for each engine on other machines, which the plan for a model needs.

        None: there are no such engines, or sizes do not depend on it.

        Raises:
            ConfigError: no host can be reached, or one cannot be used, or has too few GPUs.
        """
        if not engine.remote_engines or engine.fake:
            return None
        on_ray = {each for each in engine.remote_engines if each.startswith(f"{SCHEME}:")}
        hosts = [each for each in engine.remote_engines if each not in on_ray]
        if on_ray and engine.device.startswith("cuda"):
            raise ConfigError(
                f"--device {engine.device}: engines on Ray compute on CPUs; for GPUs of this machine, use --device cpu "
                "and name them, as in --engines cuda,ray://auto"
            )
        free = [await free_memory_of_hosts(hosts, self._settings(), engine.device) if hosts else None]
        for address in sorted(on_ray):
            try:
                free.append(await self._rays.memory_at(address))
            except LaunchError as error:
                raise ConfigError(f"{address}: {error}") from None
        known = [each for each in free if each is not None]
        if not known and not (engine.num_local_engines or (engine.kv_cache_tokens and engine.quantization != "auto")):
            raise ConfigError(
                "no host of --engines can be reached, so it is not known for how large a KV cache there is memory; "
                "start `antiphon engine-host` there, or give --kv-cache-tokens and --quantization"
            )
        return min(known, default=None)

    async def close(self) -> None:
        """End what is open. Engines on Ray that still run end with it."""
        await self._rays.close()


async def memory_elsewhere(engine: EngineConfig, settings: ServerConfig) -> int | None:
    """As the method of the same name, once, on an event loop of its own."""
    places = EnginePlaces(lambda: settings)
    try:
        return await places.memory_elsewhere(engine)
    finally:
        await places.close()

"""How much memory there is for engines on other machines, before a model is opened: the plan for it depends on that."""

from __future__ import annotations

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.fleet.launchers import free_memory_of_hosts
from antiphon.errors import ConfigError


async def memory_elsewhere(engine: EngineConfig, settings: ServerConfig) -> int | None:
    """Bytes of memory for each engine on other machines; None: there are none, or sizes do not depend on it.

    Raises:
        ConfigError: no host can be reached, or one cannot be used.
    """
    if not engine.remote_engines:
        return None
    free = await free_memory_of_hosts(engine.remote_engines, settings)
    if free is None and not (engine.num_local_engines or (engine.kv_cache_tokens and engine.quantization != "auto")):
        raise ConfigError(
            "no host of --engines can be reached, so it is not known for how large a KV cache there is memory; start "
            "`antiphon engine-host` there, or give --kv-cache-tokens and --quantization"
        )
    return free

"""The keyword arguments of `antiphon.Engine`: the options of `serve` in Python's spelling, and their names elsewhere.

Owns the names. It promises that an unknown name or a value of the wrong type is a ConfigError that says so; ranges are
checked in `config`, as for every other caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches

from antiphon.config import EngineConfig, ServerConfig
from antiphon.degrade_rules import DegradeRules
from antiphon.errors import ConfigError

_RENAMED = {"max_num_seqs": "max_num_sequences"}
# Their names in vLLM and llama-cpp-python.
ALIASES = {
    "max_model_len": "context_length",
    "n_ctx": "context_length",
    "max_num_batched_tokens": "max_batch_tokens",
    "n_batch": "max_batch_tokens",
    "enable_prefix_caching": "prefix_caching",
    "kv_cache_dtype": "kv_cache_type",
    "n_threads": "threads",
    "data_parallel_size": "engines",
    "served_model_name": "model_name",
}
# Fields of EngineConfig that callers do not set: they follow from the model and from other settings.
_DECIDED = (
    "model",
    "typed_model",
    "devices",
    "remote_engines",
    "files",
    "cpus",
    "memory_bytes",
    "gpu_bytes",
    "host_bytes",
    "memory_reserve",
)
_FAKE = ("fake", "fake_settings")
_OF_THE_FRONT = (
    "hub",
    "offline",
    "model_name",
    "scheduling_policy",
    "system_prompt",
    "tool_call_parser",
    "loop_guard",
    "hang_timeout",
)
_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
# Callers are in this process and simply wait: the queue needs no limit, and nobody needs time to finish.
_WITHOUT_A_QUEUE = {
    "max_queued_requests": 1 << 30,
    "max_stored_responses": 0,
    "drain_timeout": 0.001,
    "degrade": DegradeRules(),
    "breaker_failures": 0,
}


def configs(model: str, settings: Mapping[str, object]) -> tuple[EngineConfig, ServerConfig]:
    """The configurations of the engine and of the code in front of it.

    Raises:
        ConfigError: a setting is unknown or has an invalid value.
    """
    engine, front = _defaults()
    for name, value in settings.items():
        own = ALIASES.get(name, name)
        chosen = front if own in _OF_THE_FRONT else engine
        own = _RENAMED.get(own, own)
        if own not in chosen or name in _RENAMED.values():
            raise ConfigError(f"there is no setting {name!r}{_meant(name)}")
        chosen[own] = _checked(name, value, type(chosen[own]))
    return EngineConfig(model=model, **engine), ServerConfig(**front)  # type: ignore[arg-type]  # checked above


def setting_names() -> list[str]:
    """The names of all settings."""
    shown = {own: name for name, own in _RENAMED.items()}
    return [
        shown.get(field.name, field.name) for field in fields(EngineConfig) if field.name not in (*_DECIDED, *_FAKE)
    ] + [*_OF_THE_FRONT]


def _defaults() -> tuple[dict[str, object], dict[str, object]]:
    engine, front = EngineConfig(model=""), ServerConfig()
    of_engine = {field.name: getattr(engine, field.name) for field in fields(engine) if field.name not in _DECIDED}
    return of_engine, {name: getattr(front, name) for name in _OF_THE_FRONT} | _WITHOUT_A_QUEUE


def _checked(name: str, value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name} is {value!r}; it must be {_TYPES.get(kind, kind.__name__)}")
    return value


def _meant(name: str) -> str:
    near = get_close_matches(name, [*setting_names(), *ALIASES], n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; the settings are {', '.join(setting_names())}"

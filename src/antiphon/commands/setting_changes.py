"""What differs between two sets of settings, in words for an operator.

Owns which settings a running server can take in: most of them at once, those of the model and the engines with new
engines, and a few not at all. Keys are compared by their digests and named by their names. This module changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from antiphon.api_keys import ApiKey
from antiphon.config import EngineConfig, ServerConfig
from antiphon.http.administration import SettingChange, SettingKept

FIXED = ("host", "port", "peers", "otlp_traces_endpoint")  # a socket, clients and an exporter were made of them
OF_MODEL = ("hub", "offline", "model_name", "tool_call_parser")  # taken in together with the model
_APART = ("api_keys", "admin_keys", "peer_key", "ssl_certfile", "ssl_keyfile", "engine_secret")  # not shown as they are
_OF_FILES = ("files", "fake_settings", "typed_model")  # nobody types them
_NAMES = {"max_num_sequences": "max-num-seqs", "devices": "engines", "remote_engines": "engines"}
_RESTART = "it is only read at start; restart the server"


def fixed_settings(before: ServerConfig, after: ServerConfig) -> tuple[ServerConfig, list[SettingKept]]:
    """`after` without what cannot change at run time, and what that is."""
    kept = [
        SettingKept(setting=option(name), value=_shown(getattr(before, name)), reason=_RESTART)
        for name in FIXED
        if getattr(before, name) != getattr(after, name)
    ]
    after = replace(after, **{name: getattr(before, name) for name in FIXED})
    if bool(before.ssl_certfile) != bool(after.ssl_certfile):
        reason = "whether the server uses HTTPS is only decided at start; restart the server"
        kept.append(SettingKept(setting="ssl-certfile", value=_shown(before.ssl_certfile), reason=reason))
        after = replace(after, ssl_certfile=before.ssl_certfile, ssl_keyfile=before.ssl_keyfile)
    return after, kept


def with_model_of(settings: ServerConfig, other: ServerConfig) -> ServerConfig:
    """`settings` with the settings of the model from `other`."""
    return replace(settings, **{name: getattr(other, name) for name in OF_MODEL})


def server_changes(before: ServerConfig, after: ServerConfig) -> list[SettingChange]:
    """What differs, except the certificate."""
    changes = _changes(before, after, _APART)
    if before.engine_secret != after.engine_secret:
        changes.append(SettingChange(setting="engine-secret", before="the secret until now", after="a new one"))
    for name in ("api_keys", "admin_keys"):
        changes += _key_changes(name.replace("_", "-"), getattr(before, name), getattr(after, name))
    return changes


def engine_changes(before: EngineConfig, after: EngineConfig) -> list[SettingChange]:
    """What differs between the settings of engines."""
    return _changes(before, after, _OF_FILES)


def in_words(changes: Sequence[SettingChange]) -> str:
    """The changes on one line."""
    return ", ".join(f"{change.setting}: {change.before} → {change.after}" for change in changes)


def option(name: str) -> str:
    """The name of a field's option, without dashes in front."""
    return _NAMES.get(name, name.replace("_", "-"))


def _changes(
    before: EngineConfig | ServerConfig, after: EngineConfig | ServerConfig, apart: Iterable[str]
) -> list[SettingChange]:
    return [
        SettingChange(
            setting=option(field.name),
            before=_shown(getattr(before, field.name)),
            after=_shown(getattr(after, field.name)),
        )
        for field in fields(before)
        if field.name not in apart and getattr(before, field.name) != getattr(after, field.name)
    ]


def _key_changes(setting: str, before: Sequence[ApiKey], after: Sequence[ApiKey]) -> list[SettingChange]:
    """One change for all keys, with the names of those that differ."""
    if set(before) == set(after):
        return []
    old, new = {key.name: key for key in before}, {key.name: key for key in after}
    groups = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    details = "; ".join(f"{what}: {', '.join(names)}" for what, names in groups.items() if names)
    return [SettingChange(setting=setting, before=_count(before), after=f"{_count(after)} ({details})")]


def _count(keys: Sequence[ApiKey]) -> str:
    return f"{len(keys)} {'key' if len(keys) == 1 else 'keys'}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"

"""Typed access to a checkpoint's settings, with checks of their values.

GGUF metadata and config.json differ in names, not in what can be wrong with them: a field is missing, has the wrong
type, or is a number that no model has. Each of these is a CheckpointError that names the file and the field.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from antiphon.checkpoint import Note
from antiphon.errors import CheckpointError, printable

MAX_EXTENT = 1 << 24  # no width, depth or vocabulary is larger; keeps every product of two well inside 64 bits
MAX_CONTEXT = MAX_EXTENT


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one file. Null counts as missing, and a missing field without a default is an error.

    Every method raises CheckpointError for a field that is not of the requested kind.
    """

    path: Path
    values: Mapping[str, Any]

    def fail(self, message: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: {message}")

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int = MAX_EXTENT) -> int:
        value = self._value(key, default)
        # In Python a bool is an int, but a flag in place of a width is an error.
        if not isinstance(value, int) or isinstance(value, bool):
            self._wrong(key, value, "a whole number")
        if not least <= value <= most:
            self.fail(f"field {key!r} is {value}; it must be from {least} to {most}")
        return value

    def number(
        self, key: str, default: float | None = None, *, least: float = 0.0, most: float = sys.float_info.max
    ) -> float:
        value = self._value(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self._wrong(key, value, "a number")
        if not least <= value <= most:  # false for not-a-number, and safe for whole numbers beyond float
            end = "up" if most == sys.float_info.max else f"to {most:g}"
            self.fail(f"field {key!r} is {shown(value)}; it must be a finite number from {least:g} {end}")
        return value

    def string(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            self._wrong(key, value, "a string")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            self._wrong(key, value, "true or false")
        return value

    def strings(self, key: str) -> list[str]:
        value = self._value(key, None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._wrong(key, value, "a list of strings")
        return value

    def _value(self, key: str, default: object) -> object:
        value: object = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            self.fail(f"the required field {key!r} is missing")
        return default

    def _wrong(self, key: str, value: object, wanted: str) -> NoReturn:
        self.fail(f"field {key!r} must be {wanted}, not {shown(value)}")


def check_heads(fields: Fields, settings: Mapping[str, Any]) -> None:
    """Check what must hold between the numbers of any decoder that is served."""
    heads, kv_heads, head_dim = (settings[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    if heads % kv_heads:
        fields.fail(f"its {heads} attention heads cannot be divided among {kv_heads} key/value heads")
    if head_dim % 2:
        fields.fail(f"its heads have {head_dim} dimensions; rotary positions need an even number")


def head_dim_of(fields: Fields, hidden_size: int, heads: int) -> int:
    """The dimensions of a head if the file does not say."""
    if hidden_size % heads:
        fields.fail(f"its width of {hidden_size} cannot be divided among {heads} attention heads")
    return hidden_size // heads


def shown(value: object) -> str:
    """A stranger's value, short enough for an error message."""
    if isinstance(value, (list, dict, memoryview)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def shown_name(name: str) -> str:
    """A stranger's name for a model, short and without control characters."""
    return printable(name).strip()[:200]


def no_default_template(name: str) -> Note:
    """What to say of a checkpoint with several chat templates of which none is the default."""
    return Note("none of the checkpoint's chat templates is named 'default'", f"{shown(name)} is used")

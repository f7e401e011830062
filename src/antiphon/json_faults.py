"""Finds out why the strict decoder refused a body, and returns a message that names the field.

The decoder itself only reports a position, or a misleading reason. Most refused bodies have one invalid number or
character in one field, so the body is parsed again leniently. This never raises, and its messages are valid UTF-8. It
is slow, so it is skipped for bodies with very many values.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from antiphon.errors import InvalidRequest

_MAX_DIGITS = 400  # no valid number is near that; above 4,300 Python itself refuses
_MAX_NAME = 100  # characters of a field's name that are shown; clients choose names
_MAX_VALUES = 1 << 16  # approximately, since commas are counted
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATES = "escaped surrogates (\\ud800 to \\udfff) must come in pairs"

# The path to a value: its container's path, and its own key or index there. None is the body itself.
_Trail = tuple[Any, "str | int"] | None


@dataclass(frozen=True, slots=True)
class _Unfit:
    """Replaces a number that strict JSON does not allow."""

    reason: str


def fault_of(body: bytes) -> InvalidRequest | None:
    """The error in a field of `body`; None if the whole body is malformed, or it is too large to check."""
    if body.count(b",") > _MAX_VALUES:
        return None
    try:
        value = json.loads(body.decode(), parse_constant=_constant, parse_float=_float, parse_int=_int)
    except (ValueError, RecursionError):
        return None
    return next(_faults(value), None)


def _constant(text: str) -> _Unfit:
    return _Unfit(f"{text} is not a number in JSON")


def _float(text: str) -> float | _Unfit:
    number = float(text)
    return number if math.isfinite(number) else _Unfit("the number is too large for JSON here")


def _int(text: str) -> int | _Unfit:
    return (
        int(text) if len(text) <= _MAX_DIGITS else _Unfit(f"a number of {len(text)} digits is too large for JSON here")
    )


def _faults(body: object) -> Iterator[InvalidRequest]:
    """Search level by level, without recursion."""
    waiting: deque[tuple[_Trail, object]] = deque([(None, body)])
    while waiting:
        trail, node = waiting.popleft()
        if isinstance(node, _Unfit):
            yield _fault(trail, node.reason)
        elif isinstance(node, str) and _SURROGATE.search(node):
            yield _fault(trail, _SURROGATES)
        elif isinstance(node, list):
            waiting.extend(((trail, index), child) for index, child in enumerate(node))
        elif isinstance(node, dict):
            if any(map(_SURROGATE.search, node)):
                yield _fault(trail, f"{_SURROGATES} in a field's name too")
            waiting.extend(((trail, key), child) for key, child in node.items())


def _fault(trail: _Trail, reason: str) -> InvalidRequest:
    param = _path(trail)[:_MAX_NAME]
    message = f"Invalid value for '{param}': {reason}." if param else f"We could not parse the body as JSON: {reason}."
    return InvalidRequest(message, param=param or None)


def _path(trail: _Trail) -> str:
    keys: list[str | int] = []
    while trail is not None:
        trail, key = trail
        keys.append(key)
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in reversed(keys)).removeprefix(".")

"""Writes YAML that people can read, from dictionaries, lists and scalars.

A subset of YAML 1.2, enough for configuration files: block collections, plain or double-quoted strings, and literal
blocks for texts of several lines. PyYAML would do the same, but a server does not need it for anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Strings that mean the same without quotes to every YAML parser: they begin with a letter, `/` or `.`, and contain
# nothing that YAML, in any version, reads as a number, a date, a comment or a mapping.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*(?<![-.])")
_DURATION = re.compile(r"\d{1,9}(?:ms|s|m|h|d)")  # as Prometheus writes them; a string, too
_QUOTABLE = re.compile(r"[ -~]+")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # which YAML 1.1 reads as something else
# A literal block keeps these lines as they are: they are printable, and the first one is not indented.
_LINES = re.compile(r"(?! )[ -~¡-퟿]+(?:\n(?:[ -~¡-퟿]+)?)*[ -~¡-퟿]")


def to_yaml(value: Any) -> str:  # noqa: ANN401  # any nesting of these types
    """The YAML document of `value`: dictionaries with strings as keys, lists, strings, numbers, booleans and None."""
    return "\n".join(_block(value, "")) + "\n"


def _block(value: Any, indent: str) -> Iterator[str]:  # noqa: ANN401
    """The lines of a value that has lines of its own."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _item(f"{indent}{_scalar(key)}:", item, indent)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for item in value:
            if _is_nested(item):
                first, *rest = _block(item, indent + "  ")
                yield f"{indent}- {first[len(indent) + 2 :]}"
                yield from rest
            else:
                yield from _item(f"{indent}-", item, indent)
    else:
        yield indent + _scalar(value)


def _item(head: str, value: Any, indent: str) -> Iterator[str]:  # noqa: ANN401
    """A key or a dash with its value behind it or below it."""
    if _is_nested(value):
        yield head
        yield from _block(value, indent + "  ")
    elif isinstance(value, str) and "\n" in value and _LINES.fullmatch(value):
        yield f"{head} |-"
        yield from (f"{indent}  {line}" if line else "" for line in value.split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _is_nested(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, Mapping | list | tuple) and bool(value)


def _scalar(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, str) and _DURATION.fullmatch(value):
        return value
    if isinstance(value, str) and '"' in value and "'" not in value and _QUOTABLE.fullmatch(value):
        return f"'{value}'"  # so that the quotes inside need no escapes
    if isinstance(value, float):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))  # without a point YAML 1.1 reads 1e-09 as a string
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=False)  # also valid YAML, in which JSON's escapes mean the same

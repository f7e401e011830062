"""Records unknown fields and unsupported tools, which are ignored, so that the response can name them.

Owns the record of one request's validation. Without a record (with `--strict-fields`, and in Python) unknown fields are
refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import BeforeValidator, ValidationInfo

_MAX_NAME = 60  # characters of a name that are shown; clients choose names
_MAX_NAMES = 20  # of one request


class Ignored:
    """The fields of one request that are left out."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str, str]] = []  # the object's identity, the field's name, a remark

    def without(self, sent: dict[str, Any], unknown: Iterable[str], known: Iterable[str]) -> dict[str, Any]:
        """`sent` without the `unknown` fields, which are recorded. `known`: names to suggest."""
        names = set(unknown)
        for name in names:
            if len(self._found) >= _MAX_NAMES:
                break  # looking for similar names is slow
            near = get_close_matches(name[:_MAX_NAME], known, n=1, cutoff=0.75)
            self._note(sent, name, f" ({near[0]}?)" if near else "")
        return {name: value for name, value in sent.items() if name not in names}

    def without_tools(self, sent: list[Any], kinds: tuple[str, ...]) -> list[Any]:
        """The tools of these kinds; others are recorded. The schema refuses values that are not objects."""
        kept = []
        for index, tool in enumerate(sent):
            kind = tool.get("type", kinds[0]) if isinstance(tool, dict) else kinds[0]
            if kind in kinds or not isinstance(kind, str):
                kept.append(tool)
            else:
                self._note(sent, str(index), f" ({_shown(kind)})")
        return kept

    def names(self, body: object) -> tuple[str, ...]:
        """The names of fields left out of `body`, in OpenAI's notation: `tools[1].x`. Their number is limited."""
        if not self._found:
            return ()
        wanted = {holder for holder, _, _ in self._found}
        paths = dict(_paths(body, wanted))
        return tuple(_path(paths.get(holder, ""), _shown(name)) + note for holder, name, note in self._found)

    def _note(self, holder: object, name: str, note: str) -> None:
        if len(self._found) < _MAX_NAMES:
            self._found.append((id(holder), name, note))


def known_tools(*kinds: str) -> BeforeValidator:
    """Drops tools of other kinds from a list, if there is a record of ignored fields."""

    def check(value: object, info: ValidationInfo) -> object:
        record = info.context
        return record.without_tools(value, kinds) if isinstance(record, Ignored) and isinstance(value, list) else value

    return BeforeValidator(check)


def _paths(body: object, wanted: set[int]) -> Iterator[tuple[int, str]]:
    """The paths of the objects with these identities in `body`, searched level by level."""
    level: list[tuple[object, str]] = [(body, "")]
    left = set(wanted)
    while level and left:
        below: list[tuple[object, str]] = []
        for node, path in level:
            if id(node) in left:
                left.discard(id(node))
                yield id(node), path
            if isinstance(node, dict):
                below += [(child, _path(path, str(name)[:_MAX_NAME])) for name, child in node.items() if _holds(child)]
            elif isinstance(node, list):
                below += [(child, f"{path}[{index}]") for index, child in enumerate(node) if _holds(child)]
        level = below


def _holds(node: object) -> bool:
    return isinstance(node, dict | list)


def _path(holder: str, name: str) -> str:
    if name.isdecimal():
        return f"{holder}[{name}]"
    return f"{holder}.{name}" if holder else name


def _shown(name: str) -> str:
    """A name in characters that are valid in a header."""
    return "".join(letter if "!" <= letter <= "~" and letter != "," else "?" for letter in name[:_MAX_NAME])

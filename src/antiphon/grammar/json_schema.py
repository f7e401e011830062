"""Rewrites a JSON Schema so that llguidance can follow it, without allowing what the schema forbids.

Keywords that the library cannot follow are replaced by others that allow the same or less: bounds beyond 64 bits or too
close to zero by the nearest possible ones, a pattern that lists names by properties (so that none comes twice), a
`oneOf` whose schemas exclude each other by `anyOf`. What cannot be replaced is refused in terms of the sender's schema.
In a lenient schema (`x-guidance: {"lenient": true}`) it has no effect instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

from antiphon.grammar.nouns import GrammarError

Schema = dict[str, Any]

# The library holds bounds as float64, writes them out in digits, and counts those of integers in an int64.
LARGEST = float(2**63 - 1024)  # the largest float64 that is an int64
SMALLEST = 1e-50
LONGEST = (1 << 31) - 1  # of a text, list or object
_SIZES = {"Length": ("string", "text"), "Items": ("array", "list"), "Properties": ("object", "object")}
_ONE = ("additionalProperties", "additionalItems", "items", "contains", "not", "if", "then", "else", "propertyNames")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SAY_MORE = {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"}  # what a schema without `type` says instead
# `^name$` and `^(one|other)$`, of letters that mean nothing in an expression.
_NAMES = re.compile(r"\^(?:([\w -]+)|\((?:\?:)?([\w -]+(?:\|[\w -]+)*)\))\$", re.ASCII)


def prepared(schema: Any, check_pattern: Callable[[str], str]) -> Any:  # noqa: ANN401
    """`schema` as the library can follow it. `check_pattern`: what is wrong with an expression, or nothing.

    Raises GrammarError for what cannot be followed, unless the schema is lenient.
    """
    options = schema.get("x-guidance") if isinstance(schema, dict) else None
    lenient = isinstance(options, dict) and options.get("lenient") is True
    return _Preparation(schema, check_pattern, lenient).schema(schema)


def has_open_keys(schema: Any) -> bool:  # noqa: ANN401
    """Whether some object that fits may have keys which the schema does not name."""
    if not isinstance(schema, dict):
        return schema is True
    if _may_be(schema, "object") and ("type" in schema or not schema.keys() & _SAY_MORE):
        patterns = schema.get("patternProperties")
        listed = isinstance(patterns, dict) and all(map(_names_in, patterns))
        if schema.get("additionalProperties", True) is not False or (patterns and not listed):
            return True
    inner = [schema[key] for key in _ONE if isinstance(schema.get(key), dict)]
    inner += [each for key in _LISTS if isinstance(schema.get(key), list) for each in schema[key]]
    inner += [each for key in _MAPS if isinstance(schema.get(key), dict) for each in schema[key].values()]
    return any(map(has_open_keys, inner))


class _Preparation:
    """The walk through one schema."""

    def __init__(self, root: Any, check_pattern: Callable[[str], str], lenient: bool) -> None:  # noqa: ANN401
        self._root = root
        self._check_pattern = check_pattern
        self._lenient = lenient

    def schema(self, schema: Any) -> Any:  # noqa: ANN401
        if not isinstance(schema, dict):
            return schema
        made = dict(schema)
        self._numbers(made)
        self._sizes(made)
        self._pattern(made)
        self._names(made)
        self._one_of(made)
        for key in _ONE:
            if isinstance(made.get(key), dict):
                made[key] = self.schema(made[key])
        for key in _LISTS:
            if isinstance(made.get(key), list):
                made[key] = [self.schema(each) for each in made[key]]
        for key in _MAPS:
            if isinstance(made.get(key), dict):
                made[key] = {name: self.schema(each) for name, each in made[key].items()}
        return made

    def _refuse(self, reason: str, schema: Schema, *keys: str) -> None:
        """Refuse these keywords, or take them out of a lenient schema."""
        if not self._lenient:
            raise GrammarError(reason)
        for key in keys:
            schema.pop(key, None)

    def _numbers(self, schema: Schema) -> None:
        """Bounds that the library can write out."""
        if not _may_be(schema, "number", "integer"):
            return
        if not _may_be(schema, "number"):
            _make_inclusive(schema)
        for lower, upper in (("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")):
            self._bound(schema, lower, up=True)
            self._bound(schema, upper, up=False)
        low, high = _inner(schema, "minimum", max), _inner(schema, "maximum", min)
        if low is not None and low >= 1e17 and high is None:
            schema["maximum"] = int(LARGEST)
        if high is not None and high <= -1e17 and low is None:
            schema["minimum"] = -int(LARGEST)

    def _bound(self, schema: Schema, key: str, *, up: bool) -> None:
        """One bound, moved up or down to the next that can be kept."""
        value = schema.get(key)
        if not _is_number(value):
            return
        outward = -LARGEST if up else LARGEST
        if (value < outward) if up else (value > outward):
            schema[key] = int(outward)
        elif abs(value) > LARGEST:
            self._refuse(f"'{key}' is {_shown(value)}, and no number beyond {LARGEST:.3g} can be promised", schema, key)
        elif 0 < abs(value) < SMALLEST:
            del schema[key]
            inclusive = "minimum" if up else "maximum"
            moved = math.copysign(SMALLEST, value) if (value > 0) == up else 0
            limit = max if up else min
            old = schema.get(inclusive)
            schema[inclusive] = limit(moved, old) if _is_number(old) else moved
        elif isinstance(value, int):
            schema[key] = _int_within(value, up=up)

    def _sizes(self, schema: Schema) -> None:
        """Sizes as integers, the largest left out, as no answer is so long."""
        for name, (kind, noun) in _SIZES.items():
            for key in (f"min{name}", f"max{name}"):
                value = schema.get(key)
                if not _is_number(value) or value != int(value):
                    continue
                schema[key] = int(value)
                if value <= LONGEST:
                    continue
                if key.startswith("min") and _may_be(schema, kind):
                    self._refuse(f"'{key}' is {_shown(value)}, and no {noun} can be so long", schema, key)
                schema.pop(key, None)

    def _pattern(self, schema: Schema) -> None:
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and (fault := self._check_pattern(pattern)):
            self._refuse(_pattern_fault("pattern", pattern, fault), schema, "pattern")

    def _names(self, schema: Schema) -> None:
        """Patterns of names: names that a pattern lists become properties, each of which comes once at most."""
        patterns = schema.get("patternProperties")
        if not isinstance(patterns, dict):
            return
        properties = schema.get("properties", {})
        left: Schema = {}
        for pattern, inner in patterns.items():
            if (names := _names_in(pattern)) and isinstance(properties, dict):
                both = {name: {"allOf": [properties[name], inner]} if name in properties else inner for name in names}
                properties = properties | both
            elif fault := self._check_pattern(pattern):
                self._refuse(_pattern_fault("patternProperties", pattern, fault), {})
            else:
                left[pattern] = inner
        if properties:
            schema["properties"] = properties
        schema["patternProperties"] = left
        if not left:
            del schema["patternProperties"]

    def _one_of(self, schema: Schema) -> None:
        """`oneOf` as `anyOf`, where no two of its schemas can fit at once."""
        branches = schema.get("oneOf")
        if isinstance(branches, list) and "anyOf" not in schema and self._exclude_each_other(branches):
            schema["anyOf"] = schema.pop("oneOf")
            schema.pop("discriminator", None)  # OpenAPI's hint at what tells them apart

    def _exclude_each_other(self, branches: list[Any]) -> bool:
        """Whether these are objects that one property tells apart: each requires it, with values of its own."""
        values = [dict(self._fixed(branch)) for branch in branches]
        names = set(values[0]).intersection(*values[1:]) if values else set()
        return any(_disjoint([each[name] for each in values]) for name in names)

    def _fixed(self, branch: Any) -> Iterator[tuple[str, list[Any]]]:  # noqa: ANN401
        """The required properties of an object's schema that have a few values, with those."""
        schema = self._resolved(branch)
        required = schema.get("required")
        properties = schema.get("properties")
        if schema.get("type") != "object" or not isinstance(required, list) or not isinstance(properties, dict):
            return
        for name, inner in properties.items():
            inner = self._resolved(inner)
            values = [inner["const"]] if "const" in inner else inner.get("enum")
            if name in required and isinstance(values, list) and all(isinstance(value, str) for value in values):
                yield name, values

    def _resolved(self, schema: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """A schema, or what its `$ref` points to inside this one."""
        for _ in range(8):
            reference = schema.get("$ref") if isinstance(schema, dict) else None
            if not isinstance(reference, str) or not reference.startswith("#/"):
                break
            schema = self._root
            for part in reference[2:].split("/"):
                schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
        return schema if isinstance(schema, dict) else {}


def _may_be(schema: Schema, *kinds: str) -> bool:
    """Whether a schema's type leaves one of these."""
    type = schema.get("type")
    types = type if isinstance(type, list) else [type]
    return type is None or any(kind in types for kind in kinds)


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _inner(schema: Schema, key: str, narrower: Callable[[Any, Any], Any]) -> float | None:
    """The narrower of an inclusive and an exclusive bound."""
    exclusive = f"exclusive{key[0].upper()}{key[1:]}"
    values = [schema[name] for name in (key, exclusive) if _is_number(schema.get(name))]
    return None if not values else values[0] if len(values) == 1 else narrower(*values)


def _make_inclusive(schema: Schema) -> None:
    """The exclusive bounds of an integer as inclusive ones, which are exact where a float64 is not."""
    for exclusive, key, step, narrower in (
        ("exclusiveMinimum", "minimum", 1, max),
        ("exclusiveMaximum", "maximum", -1, min),
    ):
        value, other = schema.get(exclusive), schema.get(key)
        if _is_number(value) and (other is None or _is_number(other)):
            del schema[exclusive]
            bound = (math.floor(value) if step > 0 else math.ceil(value)) + step
            schema[key] = bound if other is None else narrower(bound, other)


def _int_within(value: int, *, up: bool) -> int:
    """The integer itself, or the next in this direction that a float64 can hold."""
    near = float(value)
    if up and near < value:
        near = math.nextafter(near, math.inf)
    if not up and near > value:
        near = math.nextafter(near, -math.inf)
    return int(near)


def _names_in(pattern: str) -> list[str]:
    """The names that an expression lists, if it does nothing else."""
    match = _NAMES.fullmatch(pattern)
    return (match[1] or match[2]).split("|") if match else []


def _disjoint(lists: list[list[str]]) -> bool:
    together = [value for each in lists for value in set(each)]
    return len(together) == len(set(together))


def _pattern_fault(key: str, pattern: str, fault: str) -> str:
    shown = pattern if len(pattern) <= 80 else f"{pattern[:80]}…"
    return f"the expression '{shown}' in '{key}' cannot be used: {fault}"


def _shown(value: float) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:8]}… ({len(text)} digits)"

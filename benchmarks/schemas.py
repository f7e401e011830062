"""JSON Schemas out of a seed: of every kind that grammars know, bounded, so that random tokens come to an end."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from jsonschema_rs import Draft202012Validator

_FORMATS = ("ipv4", "ipv6", "uuid")
_PATTERNS = ("^[A-Z]{2}[0-9]{3}$", "^(red|green|blue)(-[a-f0-9]{2})?$", "^\\+?[0-9]{3,8}$", "^[a-zà-ü]{1,6}( [a-z]+)?$")
_VALUES = ("red", "grün", 'say "hi"\n', 0, -3, 2.5, True, False, None, "", "日本")

Schema = dict[str, Any]


def random_schema(seed: int) -> Schema:
    """An object at the top, as OpenAI wants it; with definitions, one of them recursive, every third time."""
    random = Random(seed)  # noqa: S311  # repeatable on purpose
    schema = _object(random, depth=3)
    if is_recursive(seed):
        schema["$defs"] = {
            "leaf": _scalar(random),
            "tree": {
                "type": "object",
                "properties": {
                    "value": {"$ref": "#/$defs/leaf"},
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}, {"type": "boolean"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            },
        }
        schema["properties"]["tree"] = {"$ref": "#/$defs/tree"}
        schema["required"].append("tree")
    return schema


def is_recursive(seed: int) -> bool:
    """Whether the schema of a seed refers to itself, so that an answer may go on for ever."""
    return seed % 3 == 0


def problem(schema: Schema, text: str) -> str | None:
    """What an independent validator finds wrong with `text`; None: nothing."""
    validator = Draft202012Validator(schema, validate_formats=True)
    try:
        value = json.loads(text)
    except ValueError as error:
        return str(error)
    return next((error.message for error in validator.iter_errors(value)), None)


def _any(random: Random, depth: int) -> Schema:
    simple: list[Callable[[Random], Schema]] = [_scalar, _choice] if depth else [_scalar, _scalar, _choice]
    nested: list[Callable[[Random, int], Schema]] = [_object, _array, _any_of] if depth else []
    number = random.choice(range(len(simple) + len(nested)))
    return simple[number](random) if number < len(simple) else nested[number - len(simple)](random, depth - 1)


def _object(random: Random, depth: int) -> Schema:
    names = random.sample(["name", "größe", "a b", "x", "id", 'q"', "list", "of_things"], random.randint(1, 4))
    properties = {name: _any(random, depth) for name in names}
    if random.random() < 0.2:  # a few more properties, of names that have a shape
        more = {"^x_[a-z]{1,3}$": {"type": "integer", "minimum": 0, "maximum": 9}}
        open_end = {"patternProperties": more, "maxProperties": len(names) + 2, "additionalProperties": False}
        return {"type": "object", "properties": properties, "required": names, **open_end}
    required = [name for name in names if random.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(random: Random, depth: int) -> Schema:
    least = random.randint(0, 2)
    schema: Schema = {
        "type": "array",
        "items": _any(random, depth),
        "minItems": least,
        "maxItems": least + random.randint(0, 3),
    }
    if random.random() < 0.2:
        schema |= {"prefixItems": [_scalar(random)], "minItems": 1, "maxItems": 3}
    return schema


def _any_of(random: Random, depth: int) -> Schema:
    return {"anyOf": [_any(random, depth) for _ in range(random.randint(2, 3))]}


def _choice(random: Random) -> Schema:
    values = random.sample(_VALUES, random.randint(2, 5))
    return {"enum": values} if random.random() < 0.8 else {"const": values[0]}


def _scalar(random: Random) -> Schema:
    match random.randrange(6):
        case 0:
            low = random.randint(-1000, 1000)
            return {"type": "integer", "minimum": low, "maximum": low + random.randint(0, 5000)}
        case 1:
            least = random.uniform(-10, 10)
            return {"type": "number", "minimum": round(least, 2), "exclusiveMaximum": round(least + 7.25, 2)}
        case 2:
            least = random.randint(0, 5)
            return {"type": "string", "minLength": least, "maxLength": least + random.randint(0, 12)}
        case 3:
            return {"type": "string", "pattern": random.choice(_PATTERNS)}
        case 4:
            return {"type": "string", "format": random.choice(_FORMATS)}
    return random.choice([{"type": "boolean"}, {"type": ["integer", "null"], "multipleOf": 5}, {"type": "null"}])

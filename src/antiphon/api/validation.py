"""Validates a request's JSON object with its schema; an error becomes an InvalidRequest that names the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from antiphon.api.ignored import Ignored
from antiphon.api.schema import Schema
from antiphon.errors import InvalidRequest

_MAX_PARAM_LENGTH = 100  # in errors, since a client may send field names of any length


T = TypeVar("T", bound=Schema)


def validate(model: type[T], body: dict[str, Any], *, from_strings: bool = False, strict: bool = True) -> T:
    """Validate `body` as a `model`. Pydantic's first error becomes an InvalidRequest that names the field.

    With `from_strings`, numbers and booleans are strings, as in a query. Unless `strict`, unknown fields are left out
    and become the result's `ignored`.
    """
    ignored = None if strict else Ignored()
    try:
        validated = model.model_validate(body, strict=False if from_strings else None, context=ignored)
        if ignored is not None:
            validated._ignored = ignored.names(body)
        return validated
    except ValidationError as error:
        raise _from_validation(error, body) from None


def _from_validation(error: ValidationError, body: dict[str, Any]) -> InvalidRequest:
    """The first errors, about the innermost field; a union has one error for each of its branches."""
    complaints = error.errors(include_url=False, include_input=False, include_context=True)
    first = complaints[0]["loc"][:1]
    located = [
        (_param(_location(each), body, names_a_field=_names_a_field(each)), each)
        for each in complaints
        if each["loc"][:1] == first
    ]
    param = max((param for param, _ in located), key=_depth)
    same = [each for where, each in located if where == param]
    translated = InvalidRequest(_message(param, same), param=param or None)
    translated.code = _CODES.get(same[0]["type"])
    return translated


_CODES = {
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
    "missing": "missing_parameter",
}


def _location(complaint: ErrorDetails) -> tuple[str | int, ...]:
    """The path of an error. An error about several fields names one of them itself."""
    named = complaint.get("ctx", {}).get("param")
    return (*complaint["loc"], named) if named else complaint["loc"]


def _names_a_field(complaint: ErrorDetails) -> bool:
    """Whether an error's location ends with a field that may not have been sent."""
    return complaint["type"] in ("missing", "extra_forbidden") or "param" in complaint.get("ctx", {})


def _depth(param: str) -> int:
    return param.count(".") + param.count("[")


def _param(loc: Sequence[str | int], body: object, *, names_a_field: bool) -> str:
    """A path in OpenAI's notation, `messages[0].content`, without the branch names that pydantic adds."""
    path = ""
    node: Any = body
    for position, key in enumerate(loc):
        if isinstance(key, int) and isinstance(node, list) and key < len(node):
            path += f"[{key}]"
            node = node[key]
        elif isinstance(node, dict) and (key in node or (names_a_field and position == len(loc) - 1)):
            path += f".{key}" if path else str(key)
            node = node.get(key)
    return path[:_MAX_PARAM_LENGTH]


def _message(param: str, complaints: Sequence[ErrorDetails]) -> str:
    kind = complaints[0]["type"]
    if kind == "missing":
        return f"Missing required parameter: '{param}'."
    if kind == "extra_forbidden":
        return f"Unknown parameter: '{param}'."
    if kind in ("unsupported", "conflict"):
        return str(complaints[0]["msg"])
    text = " or ".join(dict.fromkeys(_requirement(each["msg"]) for each in complaints))
    return f"Invalid value for '{param}': {text}." if param else f"Invalid request body: {text}."


def _requirement(message: str) -> str:
    """Pydantic's message without its prefix and without the names of our classes."""
    return message.removeprefix("Input ").partition(" or instance of ")[0]

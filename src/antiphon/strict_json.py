"""Decodes strict JSON.

It accepts one value in UTF-8, without NaN, Infinity or lone surrogates, within limits on depth, on the number of values
and on the fields of an object. An error says what is wrong and where. Values are counted before they are created: a few
megabytes of empty lists would otherwise take seconds and hundreds of megabytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.errors import (
    InvalidRequest,
)
from antiphon.json_faults import fault_of

MAX_JSON_DEPTH = 64  # levels of nested objects and lists
MAX_JSON_VALUES = 1 << 19  # of any kind, not counting field names
MAX_JSON_CONTAINERS = 1 << 16  # objects and lists
MAX_JSON_TEXTS = 1 << 17  # strings, including field names
MAX_JSON_FIELDS = 4096  # per object
_decoder = msgspec.json.Decoder()


def decode_json_object(body: bytes, *, max_values: int = MAX_JSON_VALUES) -> dict[str, Any]:
    """Decode a strict JSON object. Raises InvalidRequest as `decode_json` does, and for any other value."""
    return as_object(decode_json(body, max_values=max_values))


def decode_json(body: bytes, *, max_values: int = MAX_JSON_VALUES) -> Any:  # noqa: ANN401
    """Decode a strict JSON value.

    Raises:
        InvalidRequest: `body` is not strict JSON, is nested deeper than MAX_JSON_DEPTH, has more than `max_values`
            values, MAX_JSON_CONTAINERS objects and lists or MAX_JSON_TEXTS strings, or has an object with more than
            MAX_JSON_FIELDS fields.
    """
    _check_size(body, max_values)
    try:
        value = _decoder.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not valid UTF-8 (byte {error.start} of a string).") from None
    except msgspec.DecodeError as error:
        unparsed = InvalidRequest(f"We could not parse the request body as JSON: {error}.")
        raise fault_of(body) or unparsed from None
    # Only a body with this many brackets or colons can be too deep or too wide, so most bodies are not searched.
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH or body.count(b":") > MAX_JSON_FIELDS:
        _check_shape(value)
    return value


def as_object(value: object) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else raise InvalidRequest."""
    if not isinstance(value, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return value


def _check_size(body: bytes, max_values: int) -> None:
    """Count values without creating them. Text inside strings is removed only if it could change the result."""
    fits = _count(body) <= max_values and _count_containers(body) <= MAX_JSON_CONTAINERS
    if fits and body.count(b'"') // 2 <= MAX_JSON_TEXTS:
        return
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') // 2 > MAX_JSON_TEXTS:
        raise _too_many(MAX_JSON_TEXTS, "strings")
    outside = b"_".join(bare.split(b'"')[::2])  # a list with a string in it must not look empty
    if _count_containers(outside) > MAX_JSON_CONTAINERS:
        raise _too_many(MAX_JSON_CONTAINERS, "objects and lists")
    dense = outside.translate(None, b" \t\r\n")
    if _count(dense) - dense.count(b"[]") - dense.count(b"{}") > max_values:
        raise _too_many(max_values, "values")


def _count(text: bytes) -> int:
    """The number of values in JSON without strings; an upper bound if there are strings. An empty list or object counts
    as two.
    """
    return 1 + text.count(b",") + _count_containers(text)


def _count_containers(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _check_shape(value: object) -> None:
    """Search level by level, without recursion."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_JSON_DEPTH):
        inner: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                if len(node) > MAX_JSON_FIELDS:
                    raise InvalidRequest(
                        f"An object in the request body has {len(node):,} fields; the most is {MAX_JSON_FIELDS:,}."
                    )
                node = node.values()
            inner.extend(child for child in node if isinstance(child, dict | list))
        if not inner:
            return
        level = inner
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested too deeply; the most is {MAX_JSON_DEPTH} levels.")


def _too_many(most: int, what: str) -> InvalidRequest:
    return InvalidRequest(f"The request body has too many {what}; the most is {most:,}.")

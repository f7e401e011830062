"""Strict JSON: bytes in, one value out.

It promises that what it accepts is UTF-8 without NaN, Infinity or lone surrogates, is one value and nothing after it,
and is at most `MAX_JSON_DEPTH` levels deep; that a refusal names what is wrong and where.
"""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.errors import (
    InvalidRequest,
)
from antiphon.json_faults import fault_of

MAX_JSON_DEPTH = 64  # objects and lists inside each other
_decoder = msgspec.json.Decoder()


def decode_json_object(body: bytes) -> dict[str, Any]:
    """One strict, shallow JSON object out of `body`, or InvalidRequest."""
    return as_object(decode_json(body))


def decode_json(body: bytes) -> Any:  # noqa: ANN401
    """One strict, shallow JSON value out of `body`, or InvalidRequest."""
    try:
        value = _decoder.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not valid UTF-8 (byte {error.start} of a string).") from None
    except msgspec.DecodeError as error:
        unparsed = InvalidRequest(f"We could not parse the request body as JSON: {error}.")
        raise fault_of(body) or unparsed from None
    # Only a body with this many brackets can be too deep; few have them, so few pay for the walk.
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH:
        _check_depth(value)
    return value


def as_object(value: object) -> dict[str, Any]:
    """`value`, which must be a JSON object, or InvalidRequest."""
    if not isinstance(value, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return value


def _check_depth(value: object) -> None:
    """Walk level by level, so that depth costs no recursion of ours."""
    level: list[Any] = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner: list[Any] = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node
            inner.extend(child for child in children if isinstance(child, dict | list))
        if not inner:
            return
        level = inner
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested too deeply; the most is {MAX_JSON_DEPTH} levels.")

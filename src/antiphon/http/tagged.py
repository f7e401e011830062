"""Objects that are told apart by their `type`, as newer APIs have them in lists of items, parts and tools.

Owns the words for a type that is not served here: it is refused by its own name, where a plain union would complain
once for each of its branches.
"""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

_MAX_SHOWN = 40  # characters of a type's name, which is the sender's own


def known_types(what: str, *kinds: str, default: str | None = None) -> BeforeValidator:
    """Refuses `what` of any other type than `kinds`; an object without a type is one of `default`."""
    expected = " or ".join(f"'{kind}'" for kind in kinds)

    def check(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            return value
        kind = value.get("type", default)
        if kind is None:
            raise PydanticCustomError("missing", "Field required", {"param": "type"})
        if kind not in kinds:
            raise PydanticCustomError(
                "unsupported",
                "{what} of type '{kind}' is not supported by this server; send {expected}.",
                {"what": what, "kind": str(kind)[:_MAX_SHOWN], "expected": expected, "param": "type"},
            )
        return value if "type" in value else {**value, "type": kind}

    return BeforeValidator(check)

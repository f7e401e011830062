"""What request schemas are made of: strict types, no unknown fields, objects with a `type`, conflicts between fields.

A union that does not know an object's `type` would complain once for each of its branches; `known_types` refuses it
once, by its own name.
"""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
)
from pydantic_core import PydanticCustomError


class Schema(BaseModel):
    """A request, or an object in one."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def conflict(param: str, message: str) -> PydanticCustomError:
    """Fields that are well alone and not together; the message goes out as it is."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})


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

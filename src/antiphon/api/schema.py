"""What request schemas are made of: strict types, no unknown fields, objects with a `type`, conflicts between fields.

If an object has an unknown `type`, a union would report one error per branch; `known_types` reports one error with that
type. An invalid request costs no more to check than a valid one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from antiphon.api.ignored import Ignored

_MAX_SHOWN = 40  # characters of a type's name, which is the sender's own


def _fail_fast(schema: object) -> None:
    """Make every list in a core schema fail at its first error. A core schema is a tree of dicts, lists and tuples."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for inner in schema:
            _fail_fast(inner)


class Checked(BaseModel):
    """Base class of all validated objects: lists stop at their first invalid item.

    Pydantic would otherwise describe each invalid item, once for each branch of a union, which takes seconds and
    gigabytes for a large body.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema


class Schema(Checked):
    """A request, or an object in one."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    _ignored: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unknown_fields(cls, sent: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        if isinstance(info.context, Ignored) and isinstance(sent, dict):
            known = _field_names(cls)
            if not sent.keys() <= known:
                return info.context.without(sent, sent.keys() - known, known)
        return sent

    @property
    def ignored(self) -> tuple[str, ...]:
        """The fields that were sent and ignored, each with its path."""
        return self._ignored


@cache
def _field_names(schema: type[Schema]) -> frozenset[str]:
    """The names that a field may be sent under."""
    names: set[str] = set()
    for name, field in schema.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            names.update(choice for choice in alias.choices if isinstance(choice, str))
        else:
            names.add(alias if isinstance(alias, str) else name)
    return frozenset(names)


def conflict(param: str, message: str) -> PydanticCustomError:
    """An error about fields that cannot be combined; the message is sent unchanged."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})


def known_types(what: str, *kinds: str, default: str | None = None) -> BeforeValidator:
    """Refuses types other than `kinds`; `what` is used in the message. An object without a type has type `default`."""
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

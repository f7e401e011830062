"""Types of request fields: accepted without effect, refused unless empty, and those that several schemas share."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from antiphon.api.limits import MAX_METADATA, MAX_STOP_LENGTH

MIN_SEED, MAX_SEED = -(1 << 63), (1 << 64) - 1
_MAX_TOP_K = (1 << 31) - 1  # the engine holds it in 32 bits

_without_effect = Field(description="Accepted for compatibility; has no effect here.")
Accepted = Annotated[Any, _without_effect]
# A wrong type is a mistake that would show only where the field has an effect; better that it shows here.
AcceptedText = Annotated[str | None, _without_effect]
AcceptedFlag = Annotated[bool | None, _without_effect]
AcceptedMap = Annotated[Annotated[dict[str, Any], MaxLen(MAX_METADATA)] | None, _without_effect]


def refused(*harmless: object) -> AfterValidator:
    """Refuses a field of OpenAI's that has no effect here yet, unless its value asks for nothing."""

    def check(value: object, info: ValidationInfo) -> object:
        if value is None or value in harmless:
            return value
        message = "'{field}' is not supported by this server; leave it out."
        raise PydanticCustomError("unsupported", message, {"field": info.field_name})

    return AfterValidator(check)


def is_refused(field: FieldInfo) -> bool:
    """Whether a field is one that `refused` refuses."""
    return (field.description or "").startswith("Refused")


def is_ignored(field: FieldInfo) -> bool:
    """Whether a field is accepted without effect."""
    return bool(field.description == _without_effect.description)


# The defaults that clients spell out without meaning anything by them are let through.
Refused = Annotated[Any, refused([], {}, False, "none"), Field(description="Refused unless empty.")]
RefusedBestOf = Annotated[Any, refused(1), Field(description="Refused but for 1.")]
RefusedText = Annotated[Any, refused(""), Field(description="Refused unless empty.")]
RefusedModalities = Annotated[Any, refused(["text"]), Field(description='Refused but for ["text"].')]


StopString = Annotated[str, MaxLen(MAX_STOP_LENGTH)]  # an empty one stops nothing
TokenId = Annotated[int, Ge(0)]


def _integral(value: object) -> object:
    """JSON has one kind of number, and some clients write 100 as 100.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unless_minus_one(value: object) -> object:
    return None if value == -1 and not isinstance(value, bool) else value


def _or_none(value: object) -> object:
    return value or None


Integer = Annotated[int, BeforeValidator(_integral)]
# Clients of llama.cpp and of older APIs say "not set" as -1.
MinusOneIsUnset = BeforeValidator(_unless_minus_one)
EmptyIsUnset = BeforeValidator(_or_none)
ModelName = Annotated[
    str | None,
    EmptyIsUnset,
    Field(description="The served model's name; may be left out or empty, as there is one."),
]
TokenLimit = Annotated[Annotated[Integer, Ge(1)] | None, MinusOneIsUnset]
Seed = Annotated[Annotated[Integer, Ge(MIN_SEED), Le(MAX_SEED)] | None, MinusOneIsUnset]
TopK = Annotated[Integer, Ge(-1), Le(_MAX_TOP_K)]

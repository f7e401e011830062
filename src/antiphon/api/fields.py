"""Types for request fields: fields accepted without effect, fields refused unless empty, and fields used by several
schemas.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from antiphon.api.limits import MAX_METADATA, MAX_STOP_LENGTH

MIN_SEED, MAX_SEED = -(1 << 63), (1 << 64) - 1
_MAX_TOP_K = (1 << 31) - 1  # the engine stores it in 32 bits

_without_effect = Field(description="Accepted for compatibility; has no effect here.")
Accepted = Annotated[Any, _without_effect]
# The types are checked although the fields have no effect: a wrong type would fail on servers where they have one.
AcceptedText = Annotated[str | None, _without_effect]
ServiceTierName = Annotated[
    str | None,
    Field(description="flex: after all other requests. Other values mean default. The answer says which one it was."),
]
AcceptedFlag = Annotated[bool | None, _without_effect]
AcceptedMap = Annotated[Annotated[dict[str, Any], MaxLen(MAX_METADATA)] | None, _without_effect]


def refused(*harmless: object) -> AfterValidator:
    """Refuses a field of OpenAI's that is not supported, unless its value is one of `harmless` or None."""

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


# Defaults that some clients always send are accepted.
Refused = Annotated[Any, refused([], {}, False, "none"), Field(description="Refused unless empty.")]
RefusedBestOf = Annotated[Any, refused(1), Field(description="Refused unless 1.")]
RefusedText = Annotated[Any, refused(""), Field(description="Refused unless empty.")]
RefusedModalities = Annotated[Any, refused(["text"]), Field(description='Refused unless ["text"].')]


StopString = Annotated[str, MaxLen(MAX_STOP_LENGTH)]  # an empty one stops nothing
TokenId = Annotated[int, Ge(0)]


def _integral(value: object) -> object:
    """Accept 100.0 for 100: JSON has one kind of number, and some clients send it that way."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unless_minus_one(value: object) -> object:
    return None if value == -1 and not isinstance(value, bool) else value


def _or_none(value: object) -> object:
    return value or None


Integer = Annotated[int, BeforeValidator(_integral)]
# Clients of llama.cpp and of older APIs send -1 for "not set".
MinusOneIsUnset = BeforeValidator(_unless_minus_one)
EmptyIsUnset = BeforeValidator(_or_none)
ModelName = Annotated[
    str | None,
    EmptyIsUnset,
    Field(description="The served model's name. May be empty or left out, since there is only one model."),
]
TokenLimit = Annotated[Annotated[Integer, Ge(1)] | None, MinusOneIsUnset]
Seed = Annotated[Annotated[Integer, Ge(MIN_SEED), Le(MAX_SEED)] | None, MinusOneIsUnset]
MAX_SECONDS = 86_400.0  # a day; timers need some limit
MaxWait = Annotated[
    Annotated[float, Ge(0), Le(MAX_SECONDS)] | None,
    Field(description="Seconds until the first token. The request is refused if that will take longer."),
]
Timeout = Annotated[
    Annotated[float, Gt(0), Le(MAX_SECONDS)] | None,
    Field(description="Seconds after which the answer ends with what it has."),
]
DegradeWish = Annotated[
    Literal["allow", "never"] | None,
    Field(description="never: refuse the request if its limits would be lowered because of the load."),
]
TopK = Annotated[Integer, Ge(-1), Le(_MAX_TOP_K)]
# The engine divides logits by it; a value much closer to zero would make its 32-bit floats overflow.
RepetitionPenalty = Annotated[float, Ge(0.01), Le(10)]
Penalty = Annotated[float, Ge(-2), Le(2)]  # of presence or frequency

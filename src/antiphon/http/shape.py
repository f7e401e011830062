"""What all request shapes are made of: strict types, no unknown fields, and a word for fields that do not agree."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Schema(BaseModel):
    """A request, or an object in one."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def conflict(param: str, message: str) -> PydanticCustomError:
    """Fields that are well alone and not together; the message goes out as it is."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})

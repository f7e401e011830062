"""The JSON that tells a client of an error, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import msgspec

from antiphon.errors import (
    AntiphonError,
)


def error_body(error: AntiphonError) -> bytes:
    """The body that tells a client of `error`, in OpenAI's shape."""
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": told})


def internal_error() -> AntiphonError:
    """Stands for a failure that nobody foresaw; says nothing of it."""
    return AntiphonError("The server had an error while processing your request.")

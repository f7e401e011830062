"""Error bodies in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import msgspec

from antiphon.errors import (
    AntiphonError,
)


def error_body(error: AntiphonError) -> bytes:
    """The JSON body for `error`, in OpenAI's shape."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": fields})


def internal_error() -> AntiphonError:
    """The error that clients see in place of an unexpected exception. It contains no details."""
    return AntiphonError("The server had an error while processing your request.")

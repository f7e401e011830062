"""Errors in the shape of Anthropic's Messages API."""

from __future__ import annotations

from antiphon.api.events import named_event
from antiphon.api.messages import shapes
from antiphon.api.shapes import encoder
from antiphon.errors import AntiphonError

OVERLOADED_STATUS = 529  # Anthropic's, where others say 503
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def error_body(error: AntiphonError) -> bytes:
    """`error` in Anthropic's shape. It has no member for the field's name, so the message includes it."""
    kind = _ERROR_TYPES.get(error.http_status, "invalid_request_error")
    is_named = error.param is None or error.param in error.message
    message = error.message if is_named else f"{error.param}: {error.message}"
    return encoder.encode(shapes.Error(shapes.ErrorDetail(kind, message)))


def error_event(error: AntiphonError) -> bytes:
    """The event that ends a failed stream."""
    return named_event("error", error_body(error))

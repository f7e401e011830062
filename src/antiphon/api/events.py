"""Server-sent events as bytes: the framing shared by all streamed answers."""

from __future__ import annotations

from antiphon.api.errors import error_body
from antiphon.errors import AntiphonError

MEDIA_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"  # OpenAI's last event
COMMENT = b": still at it\n\n"  # clients skip it


def event(payload: bytes) -> bytes:
    """One event with one line of JSON."""
    return b"data: " + payload + b"\n\n"


def named_event(name: str, payload: bytes) -> bytes:
    """One event with a name, for clients that select events by name."""
    return b"event: " + name.encode() + b"\n" + event(payload)


def error_event(error: AntiphonError) -> bytes:
    """The event that ends a failed stream, in OpenAI's shape."""
    return event(error_body(error))

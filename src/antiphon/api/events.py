"""Server-sent events as bytes: the framing that every streamed answer shares."""

from __future__ import annotations

from antiphon.api.errors import error_body
from antiphon.errors import AntiphonError

MEDIA_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"  # OpenAI's last event
COMMENT = b": still at it\n\n"  # clients skip it


def event(payload: bytes) -> bytes:
    """One event that carries one line of JSON."""
    return b"data: " + payload + b"\n\n"


def named_event(name: str, payload: bytes) -> bytes:
    """One event with a name of its own, for those who listen by name."""
    return b"event: " + name.encode() + b"\n" + event(payload)


def error_event(error: AntiphonError) -> bytes:
    """The event that ends a stream which cannot go on, in OpenAI's shape."""
    return event(error_body(error))

"""A request that is being answered: its generation, and the writer of the answer in the API's format.

Every API has the same modules: `request` (the schema), `understand` (request to Job) and `answer` (pieces to shapes).
Its `begin`, in `answer`, uses all of them, and its caller does not need to know which API it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from antiphon.api.generation import Generation
from antiphon.api.shapes import Degraded
from antiphon.errors import AntiphonError


class StreamFormat(Protocol):
    """What the stream of an API needs besides its parts."""

    media_type: str
    last: bytes  # ends every stream, including failed ones
    keep_alive: bytes  # sent after a long silence; empty if the API has nothing to send

    def failed(self, error: AntiphonError) -> bytes:
        """The message that ends a failed stream."""
        ...


class Answer(StreamFormat, Protocol):
    """Writes one request's answer, whole or streamed."""

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON value."""
        ...

    def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer in parts, each framed as the stream's format requires."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """An accepted request and the answer to it."""

    generation: Generation
    answer: Answer
    is_streamed: bool
    ignored: tuple[str, ...] = ()  # fields of the request that were ignored


@dataclass(frozen=True, slots=True)
class Detached:
    """An accepted request that is answered whether or not its client stays connected.

    The reply is either a JSON value or a stream that follows the answer.
    """

    body: bytes
    stream: AsyncIterator[bytes] | None
    format: StreamFormat  # of `stream`
    ignored: tuple[str, ...] = ()
    degraded: Degraded | None = None  # the limits that were lowered because of the load

"""A request that is being answered: its generation, and the writer of the answer in the API's format.

Every API has the same modules: `request` (the schema), `understand` (request to Job) and `answer` (pieces to shapes).
Its `begin`, in `answer`, uses all of them, and its caller does not need to know which API it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from antiphon.api.generation import Generation
from antiphon.errors import AntiphonError


class Answer(Protocol):
    """Writes one request's answer, whole or streamed."""

    media_type: str  # of a stream
    last: bytes  # ends every stream, including failed ones
    keep_alive: bytes  # sent after a long silence; empty if the API has nothing to send

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON value."""
        ...

    def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer in parts, each framed as the stream's format requires."""
        ...

    def failed(self, error: AntiphonError) -> bytes:
        """The message that ends a failed stream."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """An accepted request and the answer to it."""

    generation: Generation
    answer: Answer
    is_streamed: bool
    ignored: tuple[str, ...] = ()  # fields of the request that were ignored

"""A request that is being answered: its generation, and what writes the answer in the words of its API.

Every API has the same doors: `request` (the schema), `understand` (request to Job) and `answer` (pieces to shapes).
Its `begin`, in `answer`, goes through all of them. What calls `begin` need not know which API it is.
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
    last: bytes  # ends every stream, also one that failed
    keep_alive: bytes  # sent after a long silence; empty where no such thing is known

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON value."""
        ...

    def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer in parts, each framed for the stream."""
        ...

    def failed(self, error: AntiphonError) -> bytes:
        """What ends a stream that cannot go on."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """An accepted request and the answer to it."""

    generation: Generation
    answer: Answer
    is_streamed: bool
    ignored: tuple[str, ...] = ()  # fields of the request that were not looked at

"""Translates requests of other APIs to a ChatCompletionRequest, and its error messages back.

Errors name the fields that the client sent: a client that sent `input[2]` never sees an error about `messages[1]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.chat.understand import understand
from antiphon.api.context import Context
from antiphon.api.generation import Generation
from antiphon.api.job import Job
from antiphon.api.submission import start_generation
from antiphon.api.validation import validate
from antiphon.errors import InvalidRequest
from antiphon.metrics import RequestAccount


class Translation:
    """A chat request, and the fields that its parts came from."""

    def __init__(self, fields: Mapping[str, Any], origins: Sequence[str], names: Mapping[str, str]) -> None:
        """Create a translation.

        Args:
            fields: the fields of the chat request.
            origins: for each chat message, the name of the field that it came from.
            names: for other fields, the name in chat → the name in the sender's API. The longest match is used.

        Raises:
            InvalidRequest: chat does not accept the request.
        """
        self._origins = origins
        self._names = sorted(names.items(), key=lambda pair: -len(pair[0]))
        with self.blaming():
            self.chat = validate(ChatCompletionRequest, dict(fields))

    async def start(self, context: Context, account: RequestAccount) -> tuple[Job, Generation]:
        """Start generating. Raises the same errors as chat's `understand` and `start_generation`."""
        job = await self.understand(context)
        return job, self.generate(context, job, account)

    async def understand(self, context: Context) -> Job:
        """The request as a Job. Raises the same errors as chat's `understand`."""
        with self.blaming():
            return await understand(context, self.chat)

    def generate(self, context: Context, job: Job, account: RequestAccount) -> Generation:
        """Start generating. Raises the same errors as `start_generation`."""
        with self.blaming():
            return start_generation(context, job, account)

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Make an InvalidRequest that is raised inside name the field that the client sent."""
        try:
            yield
        except InvalidRequest as error:
            if error.param is not None:
                sent = self._sent(error.param)
                error.message = error.message.replace(f"'{error.param}'", f"'{sent}'")
                error.param = sent
            raise

    def _sent(self, param: str) -> str:
        if param.startswith("messages["):
            index = param.removeprefix("messages[").partition("]")[0]
            return self._origins[int(index)]
        for name, sent in self._names:
            if param == name or param.startswith((f"{name}.", f"{name}[")):
                return sent + param.removeprefix(name)
        return param

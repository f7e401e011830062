"""Requests in another API's words become a ChatCompletionRequest; its faults are told of the fields that were sent.

Owns nothing but names. It promises that whoever asked for `input[2]` is never told of a `messages[1]` that they did
not send.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.chat.understand import understand
from antiphon.api.context import Context
from antiphon.api.generation import Generation, start_generation
from antiphon.api.job import Job
from antiphon.api.validation import validate
from antiphon.errors import InvalidRequest
from antiphon.metrics import RequestAccount


class Translation:
    """A chat request, and where its parts came from."""

    def __init__(self, fields: Mapping[str, Any], origins: Sequence[str], names: Mapping[str, str]) -> None:
        """`fields` of the chat request; `origins`: for each of its messages the sender's name of it; `names`: chat's
        names and the sender's, for other fields; of several that fit a name the longest counts.

        Raises:
            InvalidRequest: chat does not take it.
        """
        self._origins = origins
        self._names = sorted(names.items(), key=lambda pair: -len(pair[0]))
        with self.blaming():
            self.chat = validate(ChatCompletionRequest, dict(fields))

    async def start(self, context: Context, account: RequestAccount) -> tuple[Job, Generation]:
        """Understand the request and hand it to the engine. Raises as chat's `understand` and `start_generation`."""
        with self.blaming():
            job = await understand(context, self.chat)
            return job, start_generation(context, job, account)

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """InvalidRequest raised in here names what was sent."""
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

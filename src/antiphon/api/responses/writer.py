"""Writes a response from pieces of text, as a sequence of events.

Owns the response and its status. The caller sends the events, keeps them or drops them. This module does not know who
reads the response, or where it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from antiphon.api.context import Context
from antiphon.api.job import Job
from antiphon.api.logprobs import token_logprob
from antiphon.api.pieces import Piece, Tally
from antiphon.api.responses import shapes
from antiphon.api.responses.items import Output, item_id
from antiphon.api.responses.request import ResponseRequest
from antiphon.api.shapes import TokenLogprob, encoder
from antiphon.errors import AntiphonError

_ENDS: dict[shapes.ResponseStatus, type[shapes.ResponseEvent]] = {
    "completed": shapes.Completed,
    "failed": shapes.Failed,
}


class ResponseWriter:
    """The response to one request while it is generated."""

    def __init__(self, context: Context, body: ResponseRequest, job: Job) -> None:
        self._tokenizer = context.model.text.tokenizer
        self._wants_logprobs = body.wants_logprobs
        self._output = Output()
        self._finish_reason = ""
        self.response = _asked(body, job, context.model.name)
        self.response.output = self._output.items

    def push(self, piece: Piece) -> Iterator[shapes.Event]:
        """The events for a piece."""
        self._finish_reason = piece.finish_reason or self._finish_reason
        return self._output.push(piece, self._logprobs(piece))

    def close(self, tally: Tally) -> Iterator[shapes.Event]:
        """The last events of the items, after the last piece. The response is complete then."""
        response = self.response
        cut = self._finish_reason == "length"
        yield from self._output.close("incomplete" if cut else "completed")
        response.status = "incomplete" if cut else "completed"
        if cut:
            response.incomplete_details = shapes.IncompleteDetails("max_output_tokens")
        else:
            response.completed_at = int(time.time())
        response.usage = _usage(tally)

    def stop(self, error: AntiphonError | None = None, tally: Tally | None = None) -> Iterator[shapes.Event]:
        """The last events of the items, before the last piece, as the response has failed or was cancelled."""
        yield from self._output.stop()
        self.response.status = "failed" if error else "cancelled"
        if error:
            self.response.error = shapes.ResponseError(error.code or error.type, error.message)
        self.response.usage = _usage(tally) if tally else None

    def end(self) -> shapes.Event:
        """The event that says how the response ended."""
        return _ENDS.get(self.response.status, shapes.Incomplete)(response=self.response)

    def so_far(self, status: shapes.ResponseStatus) -> shapes.ResponseBody:
        """The response with the text that it has so far."""
        return msgspec.structs.replace(self.response, status=status, output=self._output.so_far())

    def conversation(self, sent: bytes) -> bytes:
        """The items `sent` (a JSON array without its brackets) and the complete ones here, for a later turn."""
        answered = encoder.encode([_without_logprobs(item) for item in self._output.items])[1:-1]
        return b"[" + b",".join(part for part in (sent, answered) if part) + b"]"

    def _logprobs(self, piece: Piece) -> list[TokenLogprob]:
        if not self._wants_logprobs:
            return []
        return [token_logprob(self._tokenizer, scored) for scored in piece.scored]


def _without_logprobs(item: shapes.Item) -> shapes.Item:
    """The item as the model needs it in a later turn."""
    if not isinstance(item, shapes.Message):
        return item
    parts = [msgspec.structs.replace(part, logprobs=[]) for part in item.content]
    return msgspec.structs.replace(item, content=parts)


def _asked(body: ResponseRequest, job: Job, model: str) -> shapes.ResponseBody:
    """The response at its beginning, with the request's settings."""
    sampling = job.prompts[0].sampling
    choice = body.tool_choice
    format: dict[str, Any] = {"type": "text"}
    if body.text and body.text.format:
        format = body.text.format.model_dump(by_alias=True, exclude_none=True)
    return shapes.ResponseBody(
        item_id("resp"),
        int(time.time()),
        model,
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
        store=body.store is not False,
        max_output_tokens=body.max_output_tokens,
        temperature=float(sampling.temperature),
        top_p=float(sampling.top_p),
        top_logprobs=body.top_logprobs or 0,
        tools=[{"parameters": None, "strict": None, **tool.model_dump()} for tool in body.tools or ()],
        tool_choice=choice if isinstance(choice, str) else choice.model_dump() if choice else "auto",
        parallel_tool_calls=body.parallel_tool_calls is not False,
        text={"format": format},
        reasoning={"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        metadata=body.metadata or {},
        background=bool(body.background),
        user=body.user,
    )


def _usage(tally: Tally) -> shapes.Usage:
    return shapes.Usage(
        tally.prompt,
        shapes.InputTokensDetails(tally.cached),
        tally.completion,
        shapes.OutputTokensDetails(tally.reasoning),
        tally.prompt + tally.completion,
    )

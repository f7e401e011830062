"""Writes a response from pieces of text, as a sequence of events.

Owns the response and its status. The caller sends the events, keeps them or drops them. This module does not know who
reads the response, or where it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.context import Context
from antiphon.api.generation import Generation
from antiphon.api.job import Job
from antiphon.api.logprobs import token_logprob
from antiphon.api.pieces import Piece, Progress, ScoredToken, Tally
from antiphon.api.progress import prompt_progress_of, queue_of
from antiphon.api.responses import shapes
from antiphon.api.responses.items import Output
from antiphon.api.responses.request import InputMessage, Reasoning, ResponseRequest, sent_items
from antiphon.api.shapes import TokenLogprob, encoder
from antiphon.api.usage import degraded_of, inexact_of, timings_of
from antiphon.errors import AntiphonError
from antiphon.peers import new_response_id

_ENDS: dict[shapes.ResponseStatus, type[shapes.ResponseEvent]] = {
    "completed": shapes.Completed,
    "failed": shapes.Failed,
}


class ResponseWriter:
    """The response to one request while it is generated."""

    def __init__(self, context: Context, body: ResponseRequest, job: Job) -> None:
        self._tokenizer = context.model.text.tokenizer
        self._wants_logprobs = body.wants_logprobs
        self._wants_thought_logprobs = body.wants_thought_logprobs
        self._returns_progress = bool(body.return_progress)
        self.continues = bool(body.continue_final_message)
        self._output = Output()
        self._finish_reason = ""
        self._ended_by: str | UnsetType = UNSET
        self.response = _asked(body, job, context)
        self.response.output = self._output.items

    def push(self, item: Piece | Progress, generation: Generation) -> Iterator[shapes.Event]:
        """The events for what `generation` has just yielded."""
        if isinstance(item, Progress):
            if self._returns_progress:
                yield shapes.Progress(queue=queue_of(item), prompt_progress=prompt_progress_of(item))
            return
        self._finish_reason = item.finish_reason or self._finish_reason
        self._ended_by = item.ended_by or self._ended_by
        self.response.thought_closed = item.thought_closed or self.response.thought_closed
        num_tokens = generation.tally.completion if self._returns_progress else UNSET
        for event in self._output.push(item, *self._logprobs(item)):
            if isinstance(event, shapes.Delta):
                event.num_tokens = num_tokens
            yield event

    def close(self, generation: Generation) -> Iterator[shapes.Event]:
        """The last events of the items, after the last piece. The response is complete then."""
        response = self.response
        cut = self._finish_reason == "length"
        yield from self._output.close("incomplete" if cut else "completed")
        response.status = "incomplete" if cut else "completed"
        if cut:
            response.incomplete_details = shapes.IncompleteDetails("max_output_tokens", self._ended_by)
        else:
            response.completed_at = int(time.time())
        self._count(generation)

    def stop(self, error: AntiphonError | None, generation: Generation | None) -> Iterator[shapes.Event]:
        """The last events of the items, before the last piece: the response has failed or, without an error, was
        cancelled.
        """
        yield from self._output.stop()
        self.response.status = "failed" if error else "cancelled"
        if error:
            self.response.error = shapes.ResponseError(error.code or error.type, error.message)
        if generation:
            self._count(generation)

    def end(self) -> shapes.Event:
        """The event that says how the response ended."""
        return _ENDS.get(self.response.status, shapes.Incomplete)(response=self.response)

    def so_far(self, status: shapes.ResponseStatus) -> shapes.ResponseBody:
        """The response with the text that it has so far."""
        return msgspec.structs.replace(self.response, status=status, output=self._output.so_far())

    def conversation(self, sent: bytes) -> bytes:
        """The items `sent` (a JSON array without its brackets) and the complete ones here, for a later turn."""
        items = [_without_logprobs(item) for item in self._output.items]
        if self.continues:
            sent, items = _joined(sent, items)
        answered = encoder.encode(items)[1:-1]
        return b"[" + b",".join(part for part in (sent, answered) if part) + b"]"

    def _count(self, generation: Generation) -> None:
        self.response.usage = _usage(generation.tally)
        self.response.timings, self.response.degraded = timings_of(generation), degraded_of(generation)
        self.response.inexact_continuation = inexact_of(generation)

    def _logprobs(self, piece: Piece) -> tuple[list[TokenLogprob], list[TokenLogprob]]:
        """Those of the answer's tokens, and those of the thought's."""
        end = piece.num_scored_in_thought
        answer = piece.scored[end:] if self._wants_logprobs else ()
        thought = piece.scored[:end] if self._wants_thought_logprobs else ()
        return self._spelled(answer), self._spelled(thought)

    def _spelled(self, scored: Iterable[ScoredToken]) -> list[TokenLogprob]:
        return [token_logprob(self._tokenizer, each) for each in scored]


def _without_logprobs(item: shapes.Item) -> shapes.Item:
    """The item as the model needs it in a later turn."""
    if isinstance(item, shapes.Message):
        return msgspec.structs.replace(item, content=[shapes.OutputText(part.text) for part in item.content])
    if isinstance(item, shapes.Reasoning):
        return msgspec.structs.replace(item, content=[shapes.ReasoningText(part.text) for part in item.content])
    return item


def _joined(sent: bytes, answered: list[shapes.Item]) -> tuple[bytes, list[shapes.Item]]:
    """The items sent and answered, with the last one sent and the first answered joined if the latter continues it."""
    *before, last = sent_items.validate_json(b"[" + sent + b"]")
    first = answered[0] if answered else None
    if isinstance(last, InputMessage) and isinstance(first, shapes.Message):
        part = shapes.OutputText(last.text + "".join(part.text for part in first.content))
        joined: shapes.Item = msgspec.structs.replace(first, content=[part])
    elif isinstance(last, Reasoning) and isinstance(first, shapes.Reasoning):
        thought = shapes.ReasoningText(last.text + "".join(part.text for part in first.content))
        joined = msgspec.structs.replace(first, content=[thought])
    else:
        return sent, answered
    return sent_items.dump_json(before)[1:-1], [joined, *answered[1:]]


def _asked(body: ResponseRequest, job: Job, context: Context) -> shapes.ResponseBody:
    """The response at its beginning, with the request's settings."""
    sampling = job.prompts[0].sampling
    choice = body.tool_choice
    format: dict[str, Any] = {"type": "text"}
    if body.text and body.text.format:
        format = body.text.format.model_dump(by_alias=True, exclude_none=True)
    return shapes.ResponseBody(
        new_response_id(context.peers.server),
        int(time.time()),
        context.model.name,
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
        service_tier=job.service_tier.value,
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

"""What happens to one HTTP request and its generations, written as spans.

The request is the root span. Its children are the stages of a generation: `receive`, `prepare`, `queue`, `prefill` and
`decode`. They are created when the generation ends, from times that were measured anyway, so nothing is added to the
way of a token. Items of a batch have a span each, with these children. A request that generates nothing has no trace.

All times are seconds of `time.monotonic()`. This module does not know OpenTelemetry: it writes to a `Tracer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from antiphon.tracing import attributes as names
from antiphon.tracing.attributes import Attributes

_ITEMS = "generate_batch"  # the endpoint of which one HTTP request has many generations


class Span(Protocol):
    """A span that has begun. Times are those of `time.monotonic()`."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        ...

    @property
    def header(self) -> str:
        """The W3C `traceparent` of a child of this span."""
        ...

    @property
    def is_recording(self) -> bool:
        """Whether the trace is sampled. If not, nothing else has an effect."""
        ...

    def child(self, name: str, begun_at: float) -> Span:
        """Begin a span below this one."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        ...

    def event(self, name: str, at: float, attributes: Attributes | None = None) -> None:
        """Add an event."""
        ...

    def fail(self, description: str) -> None:
        """Set the status to error."""
        ...

    def end(self, at: float) -> None:
        """End it, and hand it to the exporter."""
        ...


@dataclass(frozen=True, slots=True)
class TracingFigures:
    """Numbers of spans since the start."""

    exported: int = 0
    queue_full: int = 0  # dropped because too many waited for the collector
    export_failed: int = 0  # dropped because the collector did not take them


class Tracer(Protocol):
    """Begins spans, and exports those that have ended. No call but `close` blocks."""

    def begin(self, name: str, headers: Mapping[str, str], begun_at: float, attributes: Attributes) -> Span:
        """Begin a server's span below the span that the headers name (`traceparent`, `tracestate`), if they do."""
        ...

    def figures(self) -> TracingFigures:
        """What has become of the spans."""
        ...

    def close(self) -> None:
        """Export what waits, for some seconds at most; nothing is exported afterwards. Blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """When the stages of a generation began; None: it never came so far."""

    accepted_at: float
    begun_at: float | None
    first_token_at: float | None
    last_token_at: float | None


class RequestTrace:
    """The trace of one HTTP request. It begins with the request's first generation.

    `received_at` is when its body had been read, None before.
    """

    def __init__(self, tracer: Tracer, headers: Mapping[str, str], arrived_at: float, attributes: Attributes) -> None:
        """`headers`: `traceparent` and `tracestate`, as far as they were sent; `attributes`: of the request."""
        self.received_at: float | None = None
        self._tracer = tracer
        self._headers = headers
        self._arrived_at = arrived_at
        self._attributes = attributes
        self._span: Span | None = None
        self._num_running = 0
        self._has_responded = self._is_over = False

    @property
    def trace_id(self) -> str | None:
        """The trace's id; None while the request has generated nothing."""
        return self._span.trace_id if self._span else None

    @property
    def header(self) -> str | None:
        """The `traceparent` of the response; None while the request has generated nothing."""
        return self._span.header if self._span else None

    def generation(self, name: str, endpoint: str) -> GenerationTrace | None:
        """Begin the trace of a generation; None if it is not sampled.

        `name` is the name of the request's span, by the conventions for HTTP: `POST /v1/chat/completions`.
        """
        if self._span is None:
            self._span = self._tracer.begin(name, self._headers, self._arrived_at, self._attributes)
        if not self._span.is_recording:
            return None
        self._num_running += 1
        if endpoint != _ITEMS:
            return GenerationTrace(self._span, endpoint, self._arrived_at, lambda: self.received_at, self._note_end)
        now = time.monotonic()
        item = self._span.child("item", now)

        def end() -> None:
            item.end(time.monotonic())
            self._note_end()

        return GenerationTrace(item, endpoint, now, None, end)

    def responded(self, status: int, attributes: Attributes) -> None:
        """The response has ended. A generation in the background may go on; then the trace ends with it."""
        if self._span is None:
            return
        self._span.set({names.HTTP_STATUS: status, **attributes})
        if status >= 500:  # as the conventions say of servers' spans: 4xx is the client's error, not the server's
            self._span.fail(f"HTTP {status}")
        self._has_responded = True
        self._end_if_done()

    def _note_end(self) -> None:
        self._num_running -= 1
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._span is not None and self._has_responded and not self._num_running and not self._is_over:
            self._is_over = True
            self._span.end(time.monotonic())


class GenerationTrace:
    """What happens to one generation that is sampled, until `end` or `refuse` is called."""

    def __init__(
        self,
        span: Span,
        endpoint: str,
        arrived_at: float,
        received_at: Callable[[], float | None] | None,
        on_end: Callable[[], None],
    ) -> None:
        """`span` gets the attributes and events; `received_at`: when the body had been read; None: an item of one."""
        self._span = span
        self._arrived_at = arrived_at
        self._is_item = received_at is None
        self._received_at = received_at or (lambda: arrived_at)
        self._on_end = on_end
        self._finish_reasons: list[str] = []
        self._stages: Stages | None = None
        self._prompt_times: tuple[float, float, float] | None = None
        span.set(names.endpoint_attributes(endpoint))

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set(attributes)

    def event(self, name: str, at: float | None = None, attributes: Attributes | None = None) -> None:
        """Add an event; `at` is now unless given."""
        self._span.event(name, time.monotonic() if at is None else at, attributes)

    def note_engine(self, what: str, engine_id: int, at: float, choice: int) -> None:
        """An engine that had a choice `died`, or it was `moved` from there, or `given` to this engine after that."""
        name = {"given": "resumed", "died": "engine_died", "moved": "moved"}[what]
        self._span.event(name, at, {names.ENGINE: engine_id, names.CHOICE: choice})

    def finish_choice(self, reason: str) -> None:
        """A choice is complete."""
        self._finish_reasons.append(reason)

    def set_prompt_times(self, begun_at: float, rendered_at: float, encoded_at: float) -> None:
        """Set when the chat template was rendered and its text tokenized."""
        self._prompt_times = (begun_at, rendered_at, encoded_at)

    def set_stages(self, stages: Stages) -> None:
        """Set the times of the stages; call it before `end`."""
        self._stages = stages

    def set_tokens(self, prompt: int, cached: int, generated: int, reasoning: int) -> None:
        """Set the numbers of tokens: of the prompt, of those found in the prefix cache, of all answers, of thoughts."""
        counts = {names.INPUT_TOKENS: prompt, names.CACHED_TOKENS: cached, names.OUTPUT_TOKENS: generated}
        self._span.set({**counts, names.REASONING_TOKENS: reasoning})

    def refuse(self, code: str, predicted_wait: float | None = None) -> None:
        """End it as refused; `code` is the error's, `predicted_wait` the seconds that it would have waited."""
        self._span.set({names.OUTCOME: "refused", names.ERROR_TYPE: code})
        if predicted_wait is not None:
            self._span.set({names.PREDICTED_WAIT: predicted_wait})
        self._write_arrival(time.monotonic())
        self._on_end()

    def end(self, outcome: str, error: str | None = None) -> None:
        """End it as finished, aborted or failed; `error` is the code of what went wrong."""
        now = time.monotonic()
        self._span.set({names.OUTCOME: outcome, names.END_TO_END: now - self._arrived_at})
        if self._finish_reasons:
            self._span.set({names.FINISH_REASONS: self._finish_reasons})
        if outcome == "failed":
            self._span.set({names.ERROR_TYPE: error or "internal_error"})
            self._span.fail(error or "internal_error")
        if self._stages is not None:
            self._write_stages(self._stages, now)
        self._on_end()

    def _write_arrival(self, decided_at: float) -> None:
        """The stages until the request was accepted or refused; items of a batch have no body of their own."""
        received_at = self._received_at()
        if not self._is_item:
            self._child("receive", self._arrived_at, received_at or decided_at)
        if received_at is None:
            return
        prepare = self._span.child("prepare", received_at)
        if self._prompt_times is not None:
            begun_at, rendered_at, encoded_at = self._prompt_times
            prepare.child("render", begun_at).end(rendered_at)
            prepare.child("tokenize", rendered_at).end(encoded_at)
        prepare.end(decided_at)

    def _write_stages(self, stages: Stages, now: float) -> None:
        self._write_arrival(stages.accepted_at)
        # An engine may report a start that is a step's length too early, never one before the request was accepted.
        begun_at = None if stages.begun_at is None else max(stages.begun_at, stages.accepted_at)
        self._stage("queue", stages.accepted_at, begun_at or stages.first_token_at or now, names.TIME_IN_QUEUE)
        if begun_at is None and stages.first_token_at is None:
            return
        begun = begun_at or stages.first_token_at or now
        first = stages.first_token_at
        self._stage("prefill", begun, first or now, names.TIME_IN_PREFILL)
        if first is None:
            return
        waited = first - self._arrived_at
        self._span.event("first_token", first)
        self._span.set({names.TIME_TO_FIRST_TOKEN: waited, names.FIRST_CHUNK: waited})
        self._stage("decode", first, stages.last_token_at or first, names.TIME_IN_DECODE)

    def _stage(self, name: str, begun_at: float, ended_at: float, latency: str) -> None:
        self._span.set({latency: ended_at - begun_at})
        self._child(name, begun_at, ended_at)

    def _child(self, name: str, begun_at: float, ended_at: float) -> None:
        self._span.child(name, begun_at).end(max(begun_at, ended_at))


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The W3C trace headers among an HTTP request's headers. Several `tracestate` are one list (W3C)."""
    found: dict[str, str] = {}
    for name, value in raw:
        if name in (b"traceparent", b"tracestate"):
            key, text = name.decode(), value.decode("latin-1")
            found[key] = f"{found[key]},{text}" if key in found else text
    return found


__all__ = [
    "GenerationTrace",
    "RequestTrace",
    "Span",
    "Stages",
    "Tracer",
    "TracingFigures",
    "headers_of",
]

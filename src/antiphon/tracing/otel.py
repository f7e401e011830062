"""Spans by OpenTelemetry's SDK, exported over OTLP/HTTP. The only module that imports OpenTelemetry.

Ended spans wait in a queue of bounded size and are sent in batches from a thread, so a collector that is slow or gone
costs requests nothing. What does not fit into the queue, or cannot be sent, is dropped and counted. The first failure
is logged, later ones only after the collector has worked again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from antiphon.tracing.attributes import Attributes
from antiphon.tracing.records import Span, TracingFigures

FLUSH_SECONDS = 5.0  # at the end, for what was not exported yet
_MAX_QUEUED_SPANS = 2048  # the SDK's default, unless OTEL_BSP_MAX_QUEUE_SIZE is set
_EXPORTER_LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

logger = logging.getLogger(__name__)


class OtelTracer:
    """A `Tracer` that exports to one URL. The environment's OTEL_* variables apply."""

    def __init__(self, url: str, version: str) -> None:
        """`version`: of the server."""
        self._exporter = _CountingExporter(OTLPSpanExporter(endpoint=url))
        self._queue = _BoundedQueue(self._exporter)
        # A sampler of the environment, else the parent's decision, else everything.
        self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        self._provider.add_span_processor(self._queue)
        self._tracer = self._provider.get_tracer("antiphon", version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, headers: Mapping[str, str], begun_at: float, attributes: Attributes) -> Span:
        parent = self._propagator.extract(headers, context=Context())  # an invalid header begins a new trace
        offset = time.time_ns() - time.monotonic_ns()
        begun = self._tracer.start_span(
            name, parent, trace.SpanKind.SERVER, attributes=attributes, start_time=_nanoseconds(begun_at, offset)
        )
        return _OtelSpan(self._tracer, begun, offset)

    def figures(self) -> TracingFigures:
        return TracingFigures(self._exporter.num_exported, self._queue.num_dropped, self._exporter.num_failed)

    def close(self) -> None:
        closing = threading.Thread(target=self._provider.shutdown, name="traces: last export", daemon=True)
        closing.start()
        closing.join(FLUSH_SECONDS)
        if closing.is_alive():
            self._exporter.give_up()
        if left := self._queue.num_waiting:
            logger.warning("%d spans were not exported before the server ended", left)


class _OtelSpan:
    """A `Span` of the SDK."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, offset: int) -> None:
        """`offset`: nanoseconds from `time.monotonic` to the time of day, the same for all spans of a request."""
        self._tracer = tracer
        self._span = span
        self._offset = offset

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    @property
    def header(self) -> str:
        context = self._span.get_span_context()
        return f"00-{self.trace_id}-{trace.format_span_id(context.span_id)}-{context.trace_flags:02x}"

    @property
    def is_recording(self) -> bool:
        return self._span.is_recording()

    def child(self, name: str, begun_at: float) -> Span:
        above = trace.set_span_in_context(self._span, Context())
        begun = self._tracer.start_span(name, above, start_time=_nanoseconds(begun_at, self._offset))
        return _OtelSpan(self._tracer, begun, self._offset)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str, at: float, attributes: Attributes | None = None) -> None:
        self._span.add_event(name, attributes, _nanoseconds(at, self._offset))

    def fail(self, description: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, description)

    def end(self, at: float) -> None:
        self._span.end(_nanoseconds(at, self._offset))


class _BoundedQueue(SpanProcessor):
    """The SDK's batches, with a count of the spans that they have no room for.

    Spans end on the event loop, and are exported by one thread: each count has one writer.
    """

    def __init__(self, exporter: _CountingExporter) -> None:
        self.num_dropped = 0
        self._num_ended = 0
        self._exporter = exporter
        self._room = _whole_number("OTEL_BSP_MAX_QUEUE_SIZE", _MAX_QUEUED_SPANS)
        batch = min(_whole_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), self._room)
        self._batches = BatchSpanProcessor(exporter, max_queue_size=self._room, max_export_batch_size=batch)

    @property
    def num_waiting(self) -> int:
        """Spans that have ended, and were neither exported nor dropped."""
        return self._num_ended - self._exporter.num_exported - self._exporter.num_failed

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self.num_waiting >= self._room:
            self.num_dropped += 1
            return
        self._num_ended += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._batches.force_flush(timeout_millis)


class _CountingExporter(SpanExporter):
    """Counts what an exporter does, and logs when it begins to fail and when it works again."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self.num_exported = self.num_failed = 0
        self._exporter = exporter
        self._is_failing = False
        self._reason = _LastMessage()
        exporter_logger = logging.getLogger(_EXPORTER_LOGGER)
        for earlier in [each for each in exporter_logger.filters if isinstance(each, _LastMessage)]:
            exporter_logger.removeFilter(earlier)
        exporter_logger.addFilter(self._reason)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # it would end the thread's batch without a count
            result, self._reason.text = SpanExportResult.FAILURE, f"{type(error).__name__}: {error}"
        if result is SpanExportResult.SUCCESS:
            self.num_exported += len(spans)
            if self._is_failing:
                logger.info("traces are exported again; %d spans were dropped until now", self.num_failed)
            self._is_failing = False
        else:
            self.num_failed += len(spans)
            if not self._is_failing:
                logger.warning("traces cannot be exported, and spans are dropped: %s", self._reason.text)
            self._is_failing = True
        return result

    def give_up(self) -> None:
        """End what is being tried."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class _LastMessage(logging.Filter):
    """Keeps the last message of the exporter, which says why it failed, and lets it pass at level DEBUG only."""

    def __init__(self) -> None:
        super().__init__()
        self.text = "no reason was given"

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage()
        return logger.isEnabledFor(logging.DEBUG)


def _resource(version: str) -> Resource:
    """What says which server this is; the environment may say otherwise."""
    ours = {SERVICE_NAME: "antiphon", SERVICE_VERSION: version, SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    return Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())


def _whole_number(variable: str, default: int) -> int:
    try:
        return max(1, int(os.environ.get(variable, default)))
    except ValueError:
        return default


def _nanoseconds(at: float, offset: int) -> int:
    return int(at * 1e9) + offset

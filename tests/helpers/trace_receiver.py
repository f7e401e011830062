"""A small OpenTelemetry collector for tests: takes OTLP over HTTP and decodes its protocol buffers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it was exported; times in seconds since 1970."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str  # empty for a root
    trace_state: str
    kind: int
    begun_at: float
    ended_at: float
    status: int  # 0: unset, 2: error
    attributes: dict[str, Any]
    events: list[tuple[str, float, dict[str, Any]]]
    resource: dict[str, Any]

    @property
    def seconds(self) -> float:
        return self.ended_at - self.begun_at


@dataclass
class TraceReceiver:
    """What has been received. `answer` is the HTTP status of the answers; `held` delays them while it is not set."""

    url: str = ""
    answer: int = 200
    spans: list[ReceivedSpan] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)  # of the last request
    num_requests: int = 0
    held: threading.Event = field(default_factory=threading.Event)

    def named(self, name: str, parent: ReceivedSpan | None = None) -> list[ReceivedSpan]:
        """The spans of this name, below `parent` if it is given."""
        return [each for each in self.spans if each.name == name and (not parent or each.parent_id == parent.span_id)]

    def children(self, parent: ReceivedSpan) -> dict[str, ReceivedSpan]:
        """The spans below one, by name."""
        return {each.name: each for each in self.spans if each.parent_id == parent.span_id}


@contextmanager
def receiving() -> Iterator[TraceReceiver]:
    """A collector on a free port."""
    receiver = TraceReceiver()
    receiver.held.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.num_requests += 1
            receiver.headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.held.wait(60)
            if receiver.answer == 200:
                assert self.path == "/v1/traces"
                receiver.spans += _decode(body)
            self.send_response(receiver.answer)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.held.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _decode(body: bytes) -> list[ReceivedSpan]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _received(span, _attributes(of_resource.resource.attributes))
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _received(span: WireSpan, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.kind,
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        span.status.code,
        _attributes(span.attributes),
        [(event.name, event.time_unix_nano / 1e9, _attributes(event.attributes)) for event in span.events],
        resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)

"""Traces of requests, for an OpenTelemetry collector.

`records` says what happened to a request and when, `attributes` has the names, `settings` reads flags and environment,
and `otel` alone imports OpenTelemetry, and only where traces are switched on.
"""

from antiphon.tracing.records import GenerationTrace, RequestTrace, Span, Stages, Tracer, TracingFigures
from antiphon.tracing.settings import open_tracer

__all__ = ["GenerationTrace", "RequestTrace", "Span", "Stages", "Tracer", "TracingFigures", "open_tracer"]

"""What is counted of requests: how many, how they ended, their tokens and their waiting.

Owns the names, labels and first values of these metrics; `account` changes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from antiphon.errors import SHED_REASONS
from antiphon.metrics.families import GAP_BUCKETS, TOKEN_BUCKETS, Families
from antiphon.request import ThoughtClosed

ENDPOINTS = (
    "chat",
    "completions",
    "responses",
    "messages",
    "generate",
    "generate_batch",
    "ollama_chat",
    "ollama_generate",
    "llama_completion",
)
# The codes of errors for which a generation is refused, or their types if they have no code.
REFUSALS = (
    *("invalid_request_error", "unknown_parameter", "unsupported_parameter", "missing_parameter"),
    *("context_length_exceeded", "request_too_large", "unsupported_media_type", "request_timeout", "client_gone"),
    *("model_not_found", "previous_response_not_found", "response_unavailable"),
    *("rate_limit_exceeded", "server_overloaded", "engine_unavailable", "not_ready", "internal_error"),
)

FINISH_REASONS = ("stop", "length", "tool_calls")  # in OpenAI's terms


class RequestMetrics:
    """The metrics of requests in one registry."""

    def __init__(self, registry: CollectorRegistry, key_names: Sequence[str] = ()) -> None:
        """`key_names` are the values of the label `key`."""
        families = Families(registry)
        self._define_requests(families)
        self._define_tokens(families)
        self._define_keys(families)
        self._define_waiting(families)
        self._begin_series()
        self.begin_keys(key_names)

    def count_rate_limited(self, key: str, limit: str) -> None:
        """Count a request that was over its key's rate limit; without a key, do nothing."""
        if key:
            self.key_rate_limited.labels(key, limit).inc()

    def _define_requests(self, families: Families) -> None:
        by = ["endpoint"]
        self.received = families.counter("requests_received", "Generation requests received.", by)
        self.refused = families.counter("requests_refused", "Requests refused, by error code.", [*by, "code"])
        self.http_responses = families.counter(
            "http_responses", "HTTP responses of any route.", ["method", "route", "status"]
        )
        self.unauthorized = families.counter("requests_unauthorized", "Requests to any route without a valid API key.")
        self.accepted = families.counter("requests_accepted", "Requests handed to the engine.", by)
        self.ended = {
            "finished": families.counter("requests_finished", "Accepted requests with a complete answer.", by),
            "aborted": families.counter(
                "requests_aborted", "Accepted requests whose client disconnected, read too slowly or cancelled.", by
            ),
            "failed": families.counter("requests_failed", "Accepted requests that failed because of the server.", by),
        }
        self.arriving = families.gauge("requests_arriving", "Requests received and not decided on yet.", by)
        self.running = families.gauge("requests_running", "Accepted requests that have not ended.", by)
        self.duration = families.histogram(
            "request_duration_seconds", "Time from arrival to end of accepted requests.", by
        )

    def _define_tokens(self, families: Families) -> None:
        self.prompt_tokens = families.counter("prompt_tokens", "Prompt tokens of accepted requests.")
        self.cached_tokens = families.counter(
            "prompt_tokens_cached", "Prompt tokens whose keys and values came from the prefix cache."
        )
        self.generated_tokens = families.fast_counter(
            "generated_tokens", "Tokens generated and received from the engine."
        )
        self.reasoning_tokens = families.counter("reasoning_tokens", "Generated tokens that are part of a thought.")
        self.prompt_length = families.histogram(
            "request_prompt_tokens", "Prompt tokens of an accepted request.", buckets=TOKEN_BUCKETS
        )
        self.answer_length = families.histogram(
            "request_generated_tokens", "Generated tokens of an accepted request.", buckets=TOKEN_BUCKETS
        )
        self.choices_finished = families.counter(
            "choices_finished", "Choices that are complete, by finish reason.", ["finish_reason"]
        )
        self.thoughts_closed = families.counter(
            "thoughts_closed", "Thoughts closed by the server instead of the model, by reason.", ["reason"]
        )
        self.first_token = families.histogram(
            "time_to_first_token_seconds", "Time from a request's arrival to its first token."
        )
        self.per_token = families.histogram(
            "time_per_output_token_seconds", "Mean time between two tokens of a choice.", buckets=GAP_BUCKETS
        )
        self.gap = families.fast_histogram(
            "inter_token_latency_seconds", "Time between two tokens of one choice.", GAP_BUCKETS
        )

    def _define_keys(self, families: Families) -> None:
        self.key_requests = families.counter("key_requests", "Requests to any route with an API key.", ["key"])
        self.key_rate_limited = families.counter(
            "key_rate_limited", "Requests over their key's rate limit.", ["key", "limit"]
        )
        self.key_tokens = families.counter("key_tokens", "Tokens of an API key's requests.", ["key", "kind"])

    def _define_waiting(self, families: Families) -> None:
        self.queue_wait = families.histogram(
            "queue_wait_seconds", "Time from a request's arrival until the engine began with it, or it ended before."
        )
        self.predicted_wait = families.histogram(
            "predicted_wait_seconds", "Time to the first token as predicted at a request's arrival."
        )
        self.first_answer = families.histogram(
            "time_to_first_answer_seconds", "Time from a request's arrival to the first text after its thought."
        )
        self.shed = families.counter(
            "shed_requests", "Requests refused or dropped because of too much work, by reason.", ["reason"]
        )
        self.deadline_missed = families.counter(
            "deadline_missed", "Accepted requests that were dropped in the queue, or ended by their time-out."
        )
        self.degrade_level = families.gauge(
            "degrade_level", "Level of --degrade that applies to new requests; 0: none."
        )
        self.degraded_requests = families.counter(
            "degraded_requests", "Accepted requests whose limits were lowered, by level.", ["step"]
        )
        self.retries_seen = families.counter("retries_seen", "Requests whose client says that it sent them before.")

    def _begin_series(self) -> None:
        """Create every known series with the value zero: Prometheus' `rate` ignores a series' first value."""
        for endpoint in ENDPOINTS:
            counters = (self.received, self.accepted, *self.ended.values())
            for metric in (*counters, self.arriving, self.running, self.duration):
                metric.labels(endpoint)
            for code in REFUSALS:
                self.refused.labels(endpoint, code)
        for shed_reason in SHED_REASONS:
            self.shed.labels(shed_reason)
        for finish_reason in FINISH_REASONS:
            self.choices_finished.labels(finish_reason)
        for reason in ThoughtClosed:
            self.thoughts_closed.labels(reason.value)

    def begin_keys(self, names: Sequence[str]) -> None:
        """Create the series of these keys, as far as there are none, with the value zero."""
        for key in names:
            self.key_requests.labels(key)
            for limit in ("requests", "tokens"):
                self.key_rate_limited.labels(key, limit)
            for kind in ("prompt", "generated"):
                self.key_tokens.labels(key, kind)

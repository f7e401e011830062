"""All Prometheus metrics. A leaf: imports only other leaves and prometheus_client.

Owns names, labels, buckets and the accounting of requests. At every scrape received = refused + accepted + arriving and
accepted = finished + aborted + failed + running, since one `RequestAccount` counts each request and ends exactly once.
The engine's figures are read at each scrape. `docs/metrics.md` lists all metrics, and a test compares.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from antiphon.errors import SHED_REASONS, AntiphonError, Overloaded, RateLimited
from antiphon.request import ThoughtClosed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Outcome = Literal["refused", "finished", "aborted", "failed"]
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
    *("model_not_found", "previous_response_not_found"),
    *("rate_limit_exceeded", "server_overloaded", "not_ready", "internal_error"),
)

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """The engine's state and counts at a scrape. The counts start at zero with each engine."""

    ready: bool = False
    restarts: int = 0
    running: int = 0  # sequences
    waiting: int = 0
    blocks_free: int = 0
    blocks_cached: int = 0
    blocks_in_use: int = 0
    steps: int = 0
    step_seconds: float = 0.0  # of the last step
    step_tokens: int = 0  # in the last step
    computed_tokens: int = 0
    prefix_queries: int = 0  # tokens looked up in the prefix cache
    prefix_hits: int = 0  # of those, tokens found
    preemptions: int = 0
    tokens_owed: float = 0.0


class Metrics:
    """All metrics of one server, in a separate registry."""

    def __init__(
        self,
        version: str,
        model_name: str,
        engine: Callable[[], EngineFigures] = EngineFigures,
        key_names: Sequence[str] = (),
    ) -> None:
        """`key_names` are the values of the label `key`."""
        self.registry = CollectorRegistry()
        self._define_requests()
        self._define_tokens()
        self._define_keys()
        self._define_waiting()
        self._begin_series(key_names)
        build = Gauge(
            "antiphon_build_info",
            "Always 1; the labels say what is running.",
            ["version", "model"],
            registry=self.registry,
        )
        build.labels(version, model_name).set(1)
        self.registry.register(_EngineCollector(engine))

    def request(self, endpoint: str, key: str = "") -> RequestAccount:
        """Start the account of a request that has just arrived; `key` is the name of its API key."""
        return RequestAccount(self, endpoint, key)

    def count_rate_limited(self, key: str, limit: str) -> None:
        """Count a request that was over its key's rate limit; without a key, do nothing."""
        if key:
            self.key_rate_limited.labels(key, limit).inc()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _define_requests(self) -> None:
        by = ["endpoint"]
        self.received = self._counter("requests_received", "Generation requests received.", by)
        self.refused = self._counter("requests_refused", "Requests refused, by error code.", [*by, "code"])
        self.unauthorized = self._counter("requests_unauthorized", "Requests to any route without a valid API key.")
        self.accepted = self._counter("requests_accepted", "Requests handed to the engine.", by)
        self.ended = {
            "finished": self._counter("requests_finished", "Accepted requests with a complete answer.", by),
            "aborted": self._counter(
                "requests_aborted", "Accepted requests whose client disconnected, read too slowly or cancelled.", by
            ),
            "failed": self._counter("requests_failed", "Accepted requests that failed because of the server.", by),
        }
        self.running = Gauge(
            "antiphon_requests_running", "Accepted requests that have not ended.", by, registry=self.registry
        )
        self.duration = self._histogram(
            "request_duration_seconds", "Time from arrival to end of accepted requests.", _LATENCY_BUCKETS, by
        )

    def _define_tokens(self) -> None:
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of accepted requests.")
        self.cached_tokens = self._counter(
            "prompt_tokens_cached", "Prompt tokens whose keys and values came from the prefix cache."
        )
        self.generated_tokens = self._counter("generated_tokens", "Tokens generated and received from the engine.")
        self.reasoning_tokens = self._counter("reasoning_tokens", "Generated tokens that are part of a thought.")
        self.thoughts_closed = self._counter(
            "thoughts_closed", "Thoughts closed by the server instead of the model, by reason.", ["reason"]
        )
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "Time from a request's arrival to its first token.", _LATENCY_BUCKETS
        )
        self.gap = _Gaps("inter_token_latency_seconds", "Time between two tokens of one choice.", _GAP_BUCKETS)
        self.registry.register(self.gap)

    def _define_keys(self) -> None:
        self.key_requests = self._counter("key_requests", "Requests to any route with an API key.", ["key"])
        self.key_rate_limited = self._counter(
            "key_rate_limited", "Requests over their key's rate limit.", ["key", "limit"]
        )
        self.key_tokens = self._counter("key_tokens", "Tokens of an API key's requests.", ["key", "kind"])

    def _define_waiting(self) -> None:
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "Time from a request's arrival until the engine began with it.", _LATENCY_BUCKETS
        )
        self.predicted_wait = self._histogram(
            "predicted_wait_seconds", "Time to the first token as predicted at a request's arrival.", _LATENCY_BUCKETS
        )
        self.first_answer = self._histogram(
            "time_to_first_answer_seconds",
            "Time from a request's arrival to the first text after its thought.",
            _LATENCY_BUCKETS,
        )
        self.shed = self._counter("shed", "Requests refused or dropped because of too much work.", ["reason"])
        self.deadline_missed = self._counter(
            "deadline_missed", "Accepted requests that were dropped in the queue, or ended by their time-out."
        )
        self.retries_seen = self._counter("retries_seen", "Requests whose client says that it sent them before.")

    def _begin_series(self, key_names: Sequence[str]) -> None:
        """Create every known series with the value zero: Prometheus' `rate` ignores a series' first value."""
        for endpoint in ENDPOINTS:
            for metric in (self.received, self.accepted, *self.ended.values(), self.running, self.duration):
                metric.labels(endpoint)
            for code in REFUSALS:
                self.refused.labels(endpoint, code)
        for shed_reason in SHED_REASONS:
            self.shed.labels(shed_reason)
        for reason in ThoughtClosed:
            self.thoughts_closed.labels(reason.value)
        for key in key_names:
            self.key_requests.labels(key)
            for limit in ("requests", "tokens"):
                self.key_rate_limited.labels(key, limit)
            for kind in ("prompt", "generated"):
                self.key_tokens.labels(key, kind)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"antiphon_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"antiphon_{name}", text, labels, buckets=buckets, registry=self.registry)


class RequestAccount:
    """Counts one request from its arrival to its end.

    As a context manager it covers the time until the request is accepted: leaving it before `accept` counts a refusal.
    After `accept`, `end` must be called; only its first call counts. `outcome`, `first_token_after` (seconds after its
    arrival) and the numbers of tokens describe the result.
    """

    def __init__(self, metrics: Metrics, endpoint: str, key: str = "") -> None:
        """`key` is the name of the request's API key; empty if the server has no keys."""
        self.key = key
        self.outcome: Outcome | None = None
        self.first_token_after: float | None = None
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self._metrics = metrics
        self._endpoint = endpoint
        self._arrived_at = time.monotonic()
        self._accepted = False
        self._has_answer = False
        self._when_ended: list[Callable[[], None]] = []
        metrics.received.labels(endpoint).inc()

    def __enter__(self) -> RequestAccount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._accepted:
            self.outcome = "refused"
            self._metrics.refused.labels(self._endpoint, _code(error)).inc()
        if isinstance(error, RateLimited):
            self._metrics.count_rate_limited(self.key, error.type)

    def accept(self) -> None:
        """Count the request as accepted: it has been handed to the engine."""
        self._accepted = True
        self._metrics.accepted.labels(self._endpoint).inc()
        self._metrics.running.labels(self._endpoint).inc()

    @property
    def is_running(self) -> bool:
        """Whether the request was accepted and has not ended."""
        return self._accepted and self.outcome is None

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call `call` when the running request ends; it must not raise."""
        self._when_ended.append(call)

    def observe_first_token(self, now: float, begun_at: float | None = None) -> None:
        """Record a choice's first token at `now` (time.monotonic); only the request's first one counts.

        `begun_at`: when the engine began with that choice.
        """
        if self.first_token_after is None:
            self.first_token_after = now - self._arrived_at
            self._metrics.first_token.observe(self.first_token_after)
            self._metrics.queue_wait.observe(max(0.0, (now if begun_at is None else begun_at) - self._arrived_at))

    def observe_first_answer(self) -> None:
        """Record that there is something of an answer, not of a thought; only the first time counts."""
        if not self._has_answer:
            self._has_answer = True
            self._metrics.first_answer.observe(time.monotonic() - self._arrived_at)

    def observe_predicted_wait(self, seconds: float) -> None:
        """Record when the first token was predicted, from its arrival."""
        self._metrics.predicted_wait.observe(seconds)

    def count_shed(self, error: Overloaded) -> None:
        """Count a request that is refused or dropped because of too much work."""
        self._metrics.shed.labels(error.reason).inc()
        if error.predicted_wait is not None:
            self._metrics.predicted_wait.observe(error.predicted_wait)

    def count_missed_deadline(self) -> None:
        """Count an accepted request that was not done in time."""
        self._metrics.deadline_missed.inc()

    def observe_gap(self, seconds: float) -> None:
        """Record the time between two tokens of a choice."""
        self._metrics.gap.observe(seconds)

    def count_closed_thought(self, reason: str) -> None:
        """Count a thought that the server closed."""
        self._metrics.thoughts_closed.labels(reason).inc()

    def count_tokens(self, prompt: int, cached: int, generated: int, reasoning: int) -> None:
        """Count the request's tokens; called once, at its end."""
        self.prompt_tokens, self.generated_tokens = prompt, generated
        self._metrics.prompt_tokens.inc(prompt)
        self._metrics.cached_tokens.inc(cached)
        self._metrics.generated_tokens.inc(generated)
        self._metrics.reasoning_tokens.inc(reasoning)
        if self.key:
            self._metrics.key_tokens.labels(self.key, "prompt").inc(prompt)
            self._metrics.key_tokens.labels(self.key, "generated").inc(generated)

    def end(self, outcome: Outcome) -> None:
        """Count the request as ended; later calls have no effect."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self._metrics.running.labels(self._endpoint).dec()
        self._metrics.ended[outcome].labels(self._endpoint).inc()
        self._metrics.duration.labels(self._endpoint).observe(time.monotonic() - self._arrived_at)
        for call in self._when_ended:
            call()


class _Gaps(Collector):
    """A histogram without labels, observed for each token of each stream; the library's is too slow for that."""

    def __init__(self, name: str, text: str, buckets: Sequence[float]) -> None:
        self._name, self._text = f"antiphon_{name}", text
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)  # the last one counts values above all bounds
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count a value; a bucket contains the values up to its bound."""
        self._counts[bisect_left(self._buckets, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        totals = list(accumulate(map(float, self._counts)))
        yield HistogramMetricFamily(
            self._name, self._text, buckets=list(zip(bounds, totals, strict=True)), sum_value=self._sum
        )


class _EngineCollector(Collector):
    """Reads the engine's figures at each scrape."""

    def __init__(self, figures: Callable[[], EngineFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        now = self._figures()
        for name, text, value in (
            ("engine_ready", "1 while the engine accepts work, else 0.", float(now.ready)),
            ("sequences_running", "Sequences that the engine is computing.", now.running),
            ("sequences_waiting", "Sequences waiting in the engine.", now.waiting),
            ("step_seconds", "Duration of the engine's last step.", now.step_seconds),
            ("step_tokens", "Tokens computed in the engine's last step.", now.step_tokens),
            ("tokens_owed", "Tokens to be computed for unfinished requests, expected.", now.tokens_owed),
        ):
            yield GaugeMetricFamily(f"antiphon_{name}", text, value)
        blocks = GaugeMetricFamily("antiphon_kv_blocks", "KV-cache blocks by state.", labels=["state"])
        for state, count in (("free", now.blocks_free), ("cached", now.blocks_cached), ("in_use", now.blocks_in_use)):
            blocks.add_metric([state], count)
        yield blocks
        for name, text, value in (
            ("engine_restarts", "Engines that died, hung or could not be started, and were replaced.", now.restarts),
            ("steps", "Steps computed by the engine.", now.steps),
            ("computed_tokens", "Tokens computed by the engine, including prompts.", now.computed_tokens),
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", now.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", now.prefix_hits),
            ("preemptions", "Sequences preempted because there were too few KV blocks.", now.preemptions),
        ):
            yield CounterMetricFamily(f"antiphon_{name}", text, value)


def _code(error: BaseException | None) -> str:
    """The label of a refusal, one of a small fixed set."""
    if isinstance(error, AntiphonError):
        return error.code or error.type
    return "client_gone" if error is None or not isinstance(error, Exception) else "internal_error"

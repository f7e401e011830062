"""The engines' state, work and limits, read at each scrape.

What an engine does now has the label `engine`. What engines have done is counted over all engines since the server
started, including those that died or were removed, so these counters only grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from antiphon.metrics.families import PREFIX


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """One engine's state at a scrape."""

    engine: str = "1"  # the value of the label
    ready: bool = False
    running: int = 0  # sequences
    waiting: int = 0
    blocks_free: int = 0
    blocks_cached: int = 0
    blocks_in_use: int = 0
    step_seconds: float = 0.0  # of the last step
    step_tokens: int = 0  # in the last step
    tokens_owed: float = 0.0
    breaker_state: int = 0  # 0: closed, 1: half-open, 2: open
    instruction_set: str = ""
    fingerprint: str = ""  # of its arithmetic
    model_fingerprint: str = ""
    version: str = ""  # of Antiphon

    @property
    def kv_cache_usage(self) -> float:
        """The share of the KV cache that is in use, 0 to 1."""
        total = self.blocks_free + self.blocks_cached + self.blocks_in_use
        return self.blocks_in_use / total if total else 0.0


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """What all engines together have done since the server started."""

    restarts: int = 0
    breakers_opened: int = 0  # times
    steps: int = 0
    busy_seconds: float = 0.0  # in steps
    computed_tokens: int = 0
    prefix_queries: int = 0  # tokens looked up in the prefix cache
    prefix_hits: int = 0  # of those, tokens found
    preemptions: int = 0
    shared_requests: int = 0
    inexact_continuations: int = 0  # requests
    drafted_tokens: int = 0
    accepted_draft_tokens: int = 0
    draft_saved_seconds: float = 0.0
    draft_spent_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What limits each engine and its queue; 0: no limit."""

    requests: int = 0  # accepted and not finished, of the whole server
    wait_seconds: float = 0.0  # for the first token
    sequences: int = 0  # computed at the same time
    step_tokens: int = 0  # in one step
    step_seconds: float = 0.0  # which a step should not exceed while others wait
    kv_block_tokens: int = 0  # in a block of the KV cache; 0: not known before an engine is ready


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """The number of engines, and why it changes."""

    engines: int = 1  # that were started and not removed
    wanted: int = 1
    most: int = 0  # that autoscaling may reach; 0: it is off
    wait_seconds: float = 0.0  # of a request that would come now, behind all others


@dataclass(frozen=True, slots=True)
class EnginesReport:
    """What is known of the engines at a scrape."""

    engines: Sequence[EngineFigures] = field(default_factory=lambda: (EngineFigures(),))
    counts: EngineCounts = EngineCounts()
    limits: EngineLimits = EngineLimits()
    fleet: FleetFigures = FleetFigures()


class EnginesCollector(Collector):
    """Reads the engines' figures at each scrape."""

    def __init__(self, report: Callable[[], EnginesReport]) -> None:
        self._report = report

    def collect(self) -> Iterable[Metric]:
        report = self._report()
        yield from _states(report.engines)
        yield from _counters(report.counts)
        yield from _limits(report.limits)
        yield from _fleet(report.fleet)


def _states(engines: Sequence[EngineFigures]) -> Iterable[Metric]:
    gauges: tuple[tuple[str, str, Callable[[EngineFigures], float]], ...] = (
        ("engine_ready", "1 while the engine accepts work, else 0.", lambda each: each.ready),
        ("sequences_running", "Sequences that the engine is computing.", lambda each: each.running),
        ("sequences_waiting", "Sequences waiting in the engine.", lambda each: each.waiting),
        ("step_seconds", "Duration of the engine's last step.", lambda each: each.step_seconds),
        ("step_tokens", "Tokens computed in the engine's last step.", lambda each: each.step_tokens),
        ("tokens_owed", "Tokens to be computed for unfinished requests, expected.", lambda each: each.tokens_owed),
        (
            "breaker_state",
            "State of the engine's breaker: 0 closed, 1 half-open, 2 open.",
            lambda each: each.breaker_state,
        ),
        ("kv_cache_usage_ratio", "Share of the KV cache in use, 0 to 1.", lambda each: each.kv_cache_usage),
    )
    for name, text, value in gauges:
        family = GaugeMetricFamily(PREFIX + name, text, labels=["engine"])
        for each in engines:
            family.add_metric([each.engine], float(value(each)))
        yield family
    blocks = GaugeMetricFamily(f"{PREFIX}kv_blocks", "KV-cache blocks by state.", labels=["engine", "state"])
    for each in engines:
        states = {"free": each.blocks_free, "cached": each.blocks_cached, "in_use": each.blocks_in_use}
        for state, count in states.items():
            blocks.add_metric([each.engine, state], count)
    yield blocks
    names = ["engine", "version", "instruction_set", "fingerprint", "model_fingerprint"]
    info = GaugeMetricFamily(
        f"{PREFIX}engine_info", "Always 1; the labels say what the engine computes with.", labels=names
    )
    for each in engines:
        info.add_metric([each.engine, each.version, each.instruction_set, each.fingerprint, each.model_fingerprint], 1)
    yield info


def _counters(counts: EngineCounts) -> Iterable[Metric]:
    for name, text, value in (
        ("engine_restarts", "Engines that died, hung or could not be started, and were replaced.", counts.restarts),
        ("breaker_opened", "Times that an engine's breaker opened.", counts.breakers_opened),
        ("steps", "Steps computed by the engines.", counts.steps),
        ("engine_busy_seconds", "Time that engines spent in steps.", counts.busy_seconds),
        ("computed_tokens", "Tokens computed by the engines, including prompts.", counts.computed_tokens),
        ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", counts.prefix_queries),
        ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", counts.prefix_hits),
        ("preemptions", "Sequences preempted because there were too few KV blocks.", counts.preemptions),
        ("requests_shared", "Requests that were not computed, because an equal one was.", counts.shared_requests),
        (
            "inexact_continuations",
            "Requests that continued on an engine with other arithmetic than the one before.",
            counts.inexact_continuations,
        ),
        ("draft_tokens", "Drafted tokens that were verified.", counts.drafted_tokens),
        ("draft_tokens_accepted", "Drafted tokens that were right.", counts.accepted_draft_tokens),
        (
            "draft_saved_seconds",
            "Time that the right drafts would have taken as steps of their own, estimated.",
            counts.draft_saved_seconds,
        ),
        ("draft_spent_seconds", "Time by which drafts made steps longer, estimated.", counts.draft_spent_seconds),
    ):
        yield CounterMetricFamily(PREFIX + name, text, value)


def _limits(limits: EngineLimits) -> Iterable[Metric]:
    for name, text, value in (
        ("kv_block_tokens", "Tokens in a block of the KV cache.", limits.kv_block_tokens),
        ("requests_limit", "Accepted requests that may be unfinished.", limits.requests),
        (
            "wait_limit_seconds",
            "Time for the first token above which requests are refused; 0: none.",
            limits.wait_seconds,
        ),
        ("sequences_limit", "Sequences that each engine computes at the same time.", limits.sequences),
        ("step_tokens_limit", "Tokens that an engine computes in one step.", limits.step_tokens),
        (
            "step_target_seconds",
            "Duration that a step should not exceed while others wait; 0: none.",
            limits.step_seconds,
        ),
    ):
        yield GaugeMetricFamily(PREFIX + name, text, value)


def _fleet(fleet: FleetFigures) -> Iterable[Metric]:
    for name, text, value in (
        ("engines", "Engines that were started and not removed.", fleet.engines),
        ("engines_wanted", "Engines that there should be.", fleet.wanted),
        ("engines_limit", "Engines that autoscaling may reach; 0: it is off.", fleet.most),
        (
            "forecast_wait_seconds",
            "Time until an engine would begin with a request that comes now.",
            fleet.wait_seconds,
        ),
    ):
        yield GaugeMetricFamily(PREFIX + name, text, value)

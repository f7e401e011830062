"""For each alert: series under which it fires, and series under which it must not, just below its threshold.

A series has a value in good times, and another one while the fault lasts; of a counter both are increases a minute.
Shares count only if there were enough requests, so that a quiet server alarms nobody: that is a case of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat


@dataclass(frozen=True)
class Gauge:
    """A value in good times, and during the fault."""

    good: float
    fault: float

    def values(self, before: int, fault: int, after: int) -> list[float]:
        """One for each minute."""
        return [self.good] * before + [self.fault] * fault + [self.good] * after


@dataclass(frozen=True)
class Counter:
    """The increase a minute in good times, and during the fault."""

    good: float
    fault: float

    def values(self, before: int, fault: int, after: int) -> list[float]:
        total, found = 0.0, []
        for increase in chain(repeat(self.good, before), repeat(self.fault, fault), repeat(self.good, after)):
            total += increase
            found.append(round(total, 6))
        return found


@dataclass(frozen=True)
class Steps:
    """A counter, or the time of a start, that grows by one at each of the first minutes of the fault."""

    number: int

    def values(self, before: int, fault: int, after: int) -> list[float]:
        return [min(max(0, minute - before + 1), self.number) for minute in range(before + fault + after)]


Series = Mapping[str, Gauge | Counter | Steps]


@dataclass(frozen=True)
class Case:
    """Series, and how many minutes the fault lasts."""

    series: Series
    minutes: int = 0  # 0: as long as the scenario says
    why: str = "just below the threshold"


@dataclass(frozen=True)
class Scenario:
    """`labels`: those of the series that the alert keeps, besides those of the server."""

    fires: Series
    quiet: tuple[Case, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    minutes: int = 30  # that the fault lasts
    clears_after: int = 10  # minutes


def answered(finished: Counter, failed: Counter = Counter(0, 0), **more: Counter) -> Series:
    """Requests by how they ended; `more`: refusals by their code, and `dropped` from the queue."""
    none = Counter(0, 0)
    codes = {"engine_unavailable": none, "server_overloaded": none, "invalid_request_error": none, **more}
    dropped = codes.pop("dropped", none)
    return {
        "antiphon_requests_finished_total": finished,
        "antiphon_requests_failed_total": failed,
        'antiphon_shed_requests_total{reason="queue_timeout"}': dropped,
        **{f'antiphon_requests_refused_total{{code="{code}"}}': each for code, each in codes.items()},
    }


def first_tokens(all_: Counter, in_time: Counter) -> Series:
    name = "antiphon_time_to_first_token_seconds"
    return {f"{name}_count": all_, f'{name}_bucket{{le="10.0"}}': in_time}


def predicted(up_to_120: float, up_to_300: float, limit: float = 300) -> Series:
    """Predictions a minute during the fault, in two of the buckets; otherwise ten, all of them short."""
    name = "antiphon_predicted_wait_seconds"
    total = Counter(10, up_to_120 + up_to_300)
    bounds = {"60.0": Counter(10, 0), "120.0": Counter(10, up_to_120), "300.0": total, "+Inf": total}
    found: dict[str, Gauge | Counter] = {"antiphon_wait_limit_seconds": Gauge(limit, limit), f"{name}_count": total}
    return found | {f'{name}_bucket{{le="{bound}"}}': each for bound, each in bounds.items()}


def lag(short: float, long: float) -> Series:
    """Timers a minute during the fault that were up to 0.25 s late, and up to 1 s."""
    name, total = "antiphon_event_loop_lag_seconds_bucket", Counter(120, short + long)
    bounds = {"0.25": Counter(120, short), "0.5": Counter(120, short), "1.0": total, "+Inf": total}
    return {f'{name}{{le="{bound}"}}': each for bound, each in bounds.items()}


def shed(received: Counter, **reasons: Counter) -> Series:
    found: dict[str, Counter] = {"antiphon_requests_received_total": received}
    return found | {f'antiphon_shed_requests_total{{reason="{reason}"}}': each for reason, each in reasons.items()}


def accounts(accepted: int, running: int) -> Series:
    """Ten requests of which nine have ended; during the fault that many are said to be accepted and running."""
    counts = {"received_total": accepted, "refused_total": 0, "accepted_total": accepted, "arriving": 0}
    ends = {"finished_total": 7, "aborted_total": 1, "failed_total": 1, "running": running}
    good = {"received_total": 10, "accepted_total": 10, "running": 1}
    return {
        f"antiphon_requests_{what}": Gauge(good.get(what, number), number)
        for what, number in {**counts, **ends}.items()
    }


def _two(first: str, second: str, good: float, fault: float) -> Series:
    """Two gauges of which the first is a share of the second, 100."""
    return {first: Gauge(good, fault), second: Gauge(100, 100)}


_GPU = '{gpu="0",uuid="a"}'


def _temperature(fault: float) -> Series:
    """Of a GPU that slows down at 95 °C."""
    return {
        f"antiphon_gpu_temperature_celsius{_GPU}": Gauge(60, fault),
        f"antiphon_gpu_temperature_limit_celsius{_GPU}": Gauge(95, 95),
    }


FEW = "too few requests to tell"
SHORT = "for less than its time"

SCENARIOS: Mapping[str, Scenario] = {
    "AntiphonAvailabilityFastBurn": Scenario(
        answered(Counter(10, 5), Counter(0, 5)),
        (
            Case(answered(Counter(10, 8.7), Counter(0, 1.3)), 120),
            Case(answered(Counter(0, 0.02), Counter(0, 0.14)), 180, FEW),
            Case(answered(Counter(10, 5), Counter(0, 5), dropped=Counter(0, 5)), why="dropped for too much work"),
            Case(answered(Counter(10, 5), server_overloaded=Counter(0, 50)), why="refused for too much work"),
            Case(answered(Counter(10, 5), invalid_request_error=Counter(0, 50)), why="the clients' fault"),
        ),
        minutes=60,
    ),
    "AntiphonAvailabilitySlowBurn": Scenario(
        answered(Counter(10, 9), engine_unavailable=Counter(0, 1)),
        (
            Case(answered(Counter(10, 9.5), Counter(0, 0.5))),
            Case(answered(Counter(0, 0), Counter(0, 0.025)), why=FEW),
        ),
        minutes=180,
        clears_after=40,
    ),
    "AntiphonFirstTokenFastBurn": Scenario(
        first_tokens(Counter(10, 10), Counter(10, 1)),
        (
            Case(first_tokens(Counter(10, 10), Counter(10, 3))),
            Case(first_tokens(Counter(0, 0.14), Counter(0, 0)), why=FEW),
        ),
        minutes=90,
    ),
    "AntiphonFirstTokenSlowBurn": Scenario(
        first_tokens(Counter(10, 10), Counter(10, 5)),
        (
            Case(first_tokens(Counter(10, 10), Counter(10, 7.2))),
            Case(first_tokens(Counter(0, 0.025), Counter(0, 0)), why=FEW),
        ),
        minutes=180,
        clears_after=40,
    ),
    "AntiphonServerDown": Scenario({"up": Gauge(1, 0)}, (Case({"up": Gauge(1, 0)}, 1, SHORT),)),
    "AntiphonServerRestarts": Scenario(
        {"process_start_time_seconds": Steps(2)},
        (Case({"process_start_time_seconds": Steps(1)}),),
        minutes=10,
        clears_after=20,
    ),
    "AntiphonScrapeSlow": Scenario(
        {"scrape_duration_seconds": Gauge(0.02, 1.1)},
        (
            Case({"scrape_duration_seconds": Gauge(0.02, 0.99)}),
            Case({"scrape_duration_seconds": Gauge(0.02, 1.1)}, 4, SHORT),
        ),
    ),
    "AntiphonNoEngineReady": Scenario(
        {'antiphon_engine_ready{engine="1"}': Gauge(1, 0)},
        (
            Case(
                {'antiphon_engine_ready{engine="1"}': Gauge(1, 0), 'antiphon_engine_ready{engine="2"}': Gauge(1, 1)},
                why="another engine is ready",
            ),
            Case({'antiphon_engine_ready{engine="1"}': Gauge(1, 0)}, 1, SHORT),
        ),
    ),
    "AntiphonEngineNotReady": Scenario(
        {'antiphon_engine_ready{engine="1"}': Gauge(1, 0)},
        (Case({'antiphon_engine_ready{engine="1"}': Gauge(1, 0)}, 5, SHORT),),
        labels={"engine": "1"},
    ),
    "AntiphonEngineRestarts": Scenario(
        {"antiphon_engine_restarts_total": Steps(1)},
        (Case({"antiphon_engine_restarts_total": Gauge(7, 7)}, why="those of the past"),),
        minutes=10,
        clears_after=20,
    ),
    "AntiphonBreakerOpened": Scenario(
        {"antiphon_breaker_opened_total": Steps(1)},
        (Case({"antiphon_breaker_opened_total": Gauge(7, 7)}, why="those of the past"),),
        minutes=3,
    ),
    "AntiphonDegraded": Scenario(
        {"antiphon_degrade_level": Gauge(0, 1)},
        (Case({"antiphon_degrade_level": Gauge(0, 4)}, 10, SHORT),),
    ),
    "AntiphonPredictedWaitHigh": Scenario(
        predicted(0, 10),
        (Case(predicted(8, 1)), Case(predicted(0, 1.9), why=FEW), Case(predicted(0, 10, limit=0), why="no limit")),
    ),
    "AntiphonRequestsShed": Scenario(
        shed(Counter(100, 100), predicted_wait=Counter(0, 6)),
        (
            Case(shed(Counter(100, 100), queue_full=Counter(0, 4.9))),
            Case(shed(Counter(1, 1.9), queue_full=Counter(0, 1.9)), why=FEW),
            Case(shed(Counter(100, 100), client_queue_full=Counter(0, 90), breaker=Counter(0, 9)), why="other reasons"),
        ),
    ),
    "AntiphonDeadlinesMissed": Scenario(
        {
            "antiphon_deadline_missed_total": Counter(0, 6),
            "antiphon_request_duration_seconds_count": Counter(100, 100),
        },
        (
            Case(
                {
                    "antiphon_deadline_missed_total": Counter(0, 4.9),
                    "antiphon_request_duration_seconds_count": Counter(100, 100),
                }
            ),
            Case(
                {
                    "antiphon_deadline_missed_total": Counter(0, 1.9),
                    "antiphon_request_duration_seconds_count": Counter(1, 1.9),
                },
                why=FEW,
            ),
        ),
    ),
    "AntiphonKVCacheFull": Scenario(
        {'antiphon_kv_cache_usage_ratio{engine="1"}': Gauge(0.5, 0.92)},
        (
            Case({'antiphon_kv_cache_usage_ratio{engine="1"}': Gauge(0.5, 0.89)}),
            Case({'antiphon_kv_cache_usage_ratio{engine="1"}': Gauge(0.5, 1)}, 4, SHORT),
        ),
        labels={"engine": "1"},
    ),
    "AntiphonPreemptions": Scenario(
        {"antiphon_preemptions_total": Counter(0, 2.2)},
        (Case({"antiphon_preemptions_total": Counter(0, 1.9)}),),
    ),
    "AntiphonMemoryNearLimit": Scenario(
        _two("antiphon_memory_used_bytes", "antiphon_memory_limit_bytes", 50, 96),
        (
            Case(_two("antiphon_memory_used_bytes", "antiphon_memory_limit_bytes", 50, 95)),
            Case(_two("antiphon_memory_used_bytes", "antiphon_memory_limit_bytes", 50, 99), 5, SHORT),
        ),
    ),
    "AntiphonGPUMemoryNearLimit": Scenario(
        {f"antiphon_gpu_memory_reserve_usage_ratio{_GPU}": Gauge(0.1, 0.91)},
        (
            Case({f"antiphon_gpu_memory_reserve_usage_ratio{_GPU}": Gauge(0.1, 0.9)}),
            Case({f"antiphon_gpu_memory_reserve_usage_ratio{_GPU}": Gauge(0.1, 1)}, 5, SHORT),
        ),
        labels={"gpu": "0", "uuid": "a"},
    ),
    "AntiphonGPUHot": Scenario(
        _temperature(90.5),
        (Case(_temperature(90)), Case(_temperature(99), 5, SHORT)),
        labels={"gpu": "0", "uuid": "a"},
    ),
    "AntiphonCPUThrottled": Scenario(
        {"antiphon_cpu_throttled_periods_total": Counter(0, 160), "antiphon_cpu_periods_total": Counter(600, 600)},
        (
            Case(
                {
                    "antiphon_cpu_throttled_periods_total": Counter(0, 140),
                    "antiphon_cpu_periods_total": Counter(600, 600),
                }
            ),
            Case(
                {"antiphon_cpu_throttled_periods_total": Counter(0, 0), "antiphon_cpu_periods_total": Counter(0, 0)},
                why="no quota",
            ),
        ),
    ),
    "AntiphonFileDescriptorsNearLimit": Scenario(
        _two("process_open_fds", "process_max_fds", 50, 81),
        (
            Case(_two("process_open_fds", "process_max_fds", 50, 80)),
            Case(_two("process_open_fds", "process_max_fds", 50, 99), 2, SHORT),
        ),
    ),
    "AntiphonConnectionsNearLimit": Scenario(
        _two("antiphon_connections_open", "antiphon_connections_limit", 50, 81),
        (
            Case(_two("antiphon_connections_open", "antiphon_connections_limit", 50, 80)),
            Case(_two("antiphon_connections_open", "antiphon_connections_limit", 50, 99), 2, SHORT),
        ),
    ),
    "AntiphonConnectionsRefused": Scenario(
        {"antiphon_connections_refused_total": Steps(1)},
        (Case({"antiphon_connections_refused_total": Gauge(7, 7)}, why="those of the past"),),
        minutes=3,
    ),
    "AntiphonConnectionsEvicted": Scenario(
        {"antiphon_connections_evicted_total": Counter(0, 3)},
        (Case({"antiphon_connections_evicted_total": Counter(0, 1.9)}),),
    ),
    "AntiphonEventLoopLag": Scenario(lag(100, 20), (Case(lag(119, 1)),)),
    "AntiphonAccountsOpen": Scenario(
        accounts(10, 2),
        (Case(accounts(11, 2), why="a request more"), Case(accounts(10, 2), 2, SHORT)),
    ),
    "AntiphonLogLinesDropped": Scenario(
        {'antiphon_log_lines_dropped_total{log="access"}': Steps(1)},
        (Case({'antiphon_log_lines_dropped_total{log="access"}': Gauge(7, 7)}, why="those of the past"),),
        labels={"log": "access"},
        minutes=3,
    ),
    "AntiphonCertificateExpiring": Scenario(
        # The clock of these tests begins in 1970.
        {"antiphon_tls_certificate_not_after_timestamp_seconds": Gauge(90 * 86400, 13 * 86400)},
        (Case({"antiphon_tls_certificate_not_after_timestamp_seconds": Gauge(90 * 86400, 15 * 86400)}),),
    ),
    "AntiphonCertificateExpiresSoon": Scenario(
        {"antiphon_tls_certificate_not_after_timestamp_seconds": Gauge(90 * 86400, 1 * 86400)},
        (Case({"antiphon_tls_certificate_not_after_timestamp_seconds": Gauge(90 * 86400, 3 * 86400)}),),
    ),
}

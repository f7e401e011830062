"""Alerts on what may be wrong with a server: its processes, its load, its machine and its front.

Most are causes: they explain why an objective is missed, and are worth a look even if no user has noticed. Windows are
at least four times as long as Prometheus' usual interval between scrapes, so that a scrape may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from antiphon.monitoring.alert import DAY, MINUTE, Alert, Durations, Severity, Thresholds

_SERVER = "job, instance"  # the labels of one server
_IN_TEXTS = {  # what stands for a value in the texts below, and Prometheus' template for it
    "{at}": "{{ $labels.instance }}",
    "{engine}": "{{ $labels.engine }}",
    "{gpu}": "{{ $labels.gpu }}",
    "{log}": "{{ $labels.log }}",
    "{percent}": "{{ $value | humanizePercentage }}",
    "{count}": '{{ printf "%.0f" $value }}',
    "{time}": "{{ $value | humanizeDuration }}",
}


def server_alerts(thresholds: Thresholds, duration: Durations, job: str) -> Iterator[Alert]:
    """The server does not answer, answers slowly, or starts again and again."""
    yield _alert(
        name="AntiphonServerDown",
        severity="critical",
        expression=f'up{{job="{job}"}} == 0',
        hold=MINUTE,
        summary="{at} does not answer",
        description="Prometheus could not read the metrics of {at} for a minute: the server does not run, cannot be "
        "reached, or refuses the key.",
    )
    yield _cause(
        name="AntiphonServerRestarts",
        expression=f'changes(process_start_time_seconds{{job="{job}"}}[{duration(15 * MINUTE)}]) '
        f">= {thresholds.server_restarts}",
        summary="{at} was restarted {count} times",
        description="{at} was restarted {count} times within 15 minutes. Its log, and the service "
        "manager's, say how it ended.",
    )
    yield _cause(
        name="AntiphonScrapeSlow",
        expression=f'avg_over_time(scrape_duration_seconds{{job="{job}"}}[{duration(5 * MINUTE)}]) '
        f"> {thresholds.scrape_seconds:g}",
        hold=5 * MINUTE,
        summary="{at} takes {time} to answer a scrape",
        description="Reading the metrics of {at} takes {time} on average, usually some milliseconds: its event loop is "
        "blocked, or it gets too little processor time.",
    )


def engine_alerts(thresholds: Thresholds, duration: Durations) -> Iterator[Alert]:
    """Engines are missing, die, or keep failing."""
    yield _alert(
        name="AntiphonNoEngineReady",
        severity="critical",
        expression=f"max by ({_SERVER}) (antiphon_engine_ready) == 0",
        hold=MINUTE,
        summary="No engine of {at} is ready",
        description="{at} has had no engine for a minute, so it answers nothing. `/ready` says why.",
    )
    yield _cause(
        name="AntiphonEngineNotReady",
        expression="antiphon_engine_ready == 0",
        hold=5 * MINUTE,
        summary="Engine {engine} of {at} is not ready",
        description="Engine {engine} of {at} has accepted no work for 5 minutes. `antiphon engines` shows its state.",
    )
    yield _cause(
        name="AntiphonEngineRestarts",
        # Half of one less, since Prometheus extrapolates an increase to the whole window.
        expression=f"increase(antiphon_engine_restarts_total[{duration(15 * MINUTE)}]) "
        f"> {thresholds.engine_restarts - 0.5:g}",
        summary="Engines of {at} died {count} times",
        description="Engines of {at} died, hung or could not be started {count} times within 15 minutes. Its log "
        "says how they ended.",
    )
    yield _cause(
        name="AntiphonBreakerOpened",
        expression=f"increase(antiphon_breaker_opened_total[{duration(5 * MINUTE)}]) > 0",
        summary="The breaker of {at} opened",
        description="An engine of {at} kept failing, so its breaker opened within the last 5 minutes: it gets no new "
        "requests for a while. Without another engine they are refused with 503.",
    )


def load_alerts(thresholds: Thresholds, duration: Durations) -> Iterator[Alert]:
    """There is more work than the server can do in time."""
    window = duration(5 * MINUTE)
    yield _cause(
        name="AntiphonDegraded",
        expression=f"antiphon_degrade_level >= {thresholds.degrade_level}",
        hold=10 * MINUTE,
        summary="{at} has lowered limits for 10 minutes",
        description="{at} has been at level {count} of --degrade for 10 minutes: new answers are shorter, or refused.",
    )
    predicted = f"sum by ({_SERVER}, le) (rate(antiphon_predicted_wait_seconds_bucket[{window}]))"
    yield _cause(
        name="AntiphonPredictedWaitHigh",
        # A limit of 0 is none.
        expression=f"histogram_quantile(0.9, {predicted}) > on ({_SERVER})\n"
        f"({thresholds.max_wait_share:g} * (antiphon_wait_limit_seconds > 0))\n"
        f"and {_increase('antiphon_predicted_wait_seconds_count', window)} >= {thresholds.min_requests}",
        hold=5 * MINUTE,
        summary="Requests to {at} wait {time}",
        description="{at} predicts that one of ten requests waits {time} or longer for its first token. It refuses "
        "requests that would wait longer than --max-wait, and clients may give up before.",
    )
    # Not counted: a single client with too many requests, and engines that keep failing, which has alerts of its own.
    shed = _increase('antiphon_shed_requests_total{reason!~"breaker|client_queue_full"}', window)
    received = _increase("antiphon_requests_received_total", window)
    yield _cause(
        name="AntiphonRequestsShed",
        expression=f"{shed} / {received} > {thresholds.shed_share:g}\nand {received} >= {thresholds.min_requests}",
        hold=5 * MINUTE,
        summary="{at} refuses {percent} of requests",
        description="{at} refused or dropped {percent} of the requests of the last 5 minutes because of too much work.",
    )
    missed = _increase("antiphon_deadline_missed_total", window)
    ended = _increase("antiphon_request_duration_seconds_count", window)
    yield _cause(
        name="AntiphonDeadlinesMissed",
        expression=f"{missed} / {ended} > {thresholds.deadlines_missed_share:g}\n"
        f"and {ended} >= {thresholds.min_requests}",
        hold=5 * MINUTE,
        summary="{percent} of requests to {at} were not done in time",
        description="{percent} of the requests that ended within the last 5 minutes at {at} had waited for longer than "
        "their max_wait, or were cut off by their timeout.",
    )
    yield _cause(
        name="AntiphonKVCacheFull",
        expression=f"avg_over_time(antiphon_kv_cache_usage_ratio[{window}]) > {thresholds.kv_cache_share:g}",
        hold=5 * MINUTE,
        summary="The KV cache of {at} is {percent} full",
        description="Running requests use {percent} of the KV cache of engine {engine} of {at}, on average over 5 "
        "minutes; others wait for room.",
    )
    yield _cause(
        name="AntiphonPreemptions",
        expression=f"increase(antiphon_preemptions_total[{window}]) > {thresholds.preemptions}",
        hold=5 * MINUTE,
        summary="{at} computes sequences again",
        description="{at} preempted {count} sequences within 5 minutes, since the KV cache had no room for all of "
        "them. Their tokens are computed again, which takes time from everyone.",
    )


def machine_alerts(thresholds: Thresholds, duration: Durations, job: str) -> Iterator[Alert]:
    """The machine or container gives the server too little."""
    window = duration(5 * MINUTE)
    yield _cause(
        name="AntiphonMemoryNearLimit",
        expression=f"antiphon_memory_used_bytes / antiphon_memory_limit_bytes > {thresholds.memory_share:g}",
        hold=5 * MINUTE,
        summary="{at} uses {percent} of its memory",
        description="The server {at} uses {percent} of the memory that it may use. At the limit the kernel kills an "
        "engine.",
    )
    yield from _gpu_alerts(thresholds)
    throttled = f"rate(antiphon_cpu_throttled_periods_total[{window}]) / rate(antiphon_cpu_periods_total[{window}])"
    yield _cause(
        name="AntiphonCPUThrottled",
        expression=f"{throttled} > {thresholds.cpu_throttled_share:g}",
        hold=10 * MINUTE,
        summary="The CPU quota stops {at} in {percent} of periods",
        description="The CPU quota of {at} was used up in {percent} of its periods. Its threads are then stopped in "
        "the middle of a step, and all of them wait for the last one.",
    )
    yield _cause(
        name="AntiphonFileDescriptorsNearLimit",
        expression=f'process_open_fds{{job="{job}"}} / process_max_fds{{job="{job}"}} '
        f"> {thresholds.open_files_share:g}",
        hold=2 * MINUTE,
        summary="{at} has {percent} of its file descriptors open",
        description="{at} has {percent} of the file descriptors open that it may have. Without one, new connections "
        "wait.",
    )


def _gpu_alerts(thresholds: Thresholds) -> Iterator[Alert]:
    yield _cause(
        name="AntiphonGPUMemoryNearLimit",
        expression=f"antiphon_gpu_memory_reserve_usage_ratio > {thresholds.gpu_reserve_share:g}",
        hold=5 * MINUTE,
        summary="GPU {gpu} of {at} has little memory left",
        description="Of the memory that the plan leaves free on GPU {gpu} of {at}, {percent} is in use. An engine that "
        "is started again may find too little, and --degrade lowers limits.",
    )
    limit = f"(antiphon_gpu_temperature_limit_celsius - {thresholds.gpu_temperature_margin:g})"
    yield _cause(
        name="AntiphonGPUHot",
        expression=f"antiphon_gpu_temperature_celsius > {limit}",
        hold=5 * MINUTE,
        summary="GPU {gpu} of {at} has {count} °C",
        description="GPU {gpu} of {at} has {count} °C and is close to the temperature at which it slows down.",
    )


def front_alerts(thresholds: Thresholds, duration: Durations) -> Iterator[Alert]:
    """Connections, the event loop, the accounts, the log and the certificate."""
    yield from _connection_alerts(thresholds, duration)
    lag = f"sum by ({_SERVER}, le) (rate(antiphon_event_loop_lag_seconds_bucket[{duration(5 * MINUTE)}]))"
    yield _cause(
        name="AntiphonEventLoopLag",
        expression=f"histogram_quantile(0.99, {lag}) > {thresholds.event_loop_lag_seconds:g}",
        hold=5 * MINUTE,
        summary="The event loop of {at} is {time} late",
        description="The front of {at} reacts {time} late (P99): every stream stalls for that long.",
    )
    yield _alert(
        name="AntiphonAccountsOpen",
        severity="warning",
        expression=_accounts(),
        hold=2 * MINUTE,
        summary="The accounts of {at} do not close",
        description="{count} requests at {at} are neither running nor counted as ended, or the reverse. This is a "
        "defect of the server.",
    )
    yield _alert(
        name="AntiphonLogLinesDropped",
        severity="warning",
        expression=f"increase(antiphon_log_lines_dropped_total[{duration(5 * MINUTE)}]) > 0",
        summary="{at} drops log lines",
        description="{at} dropped {count} lines of its log ({log}) within 5 minutes, since nobody read them or the "
        "disk was full.",
    )
    expiry = "antiphon_tls_certificate_not_after_timestamp_seconds - time()"
    text = "The certificate of {at} expires in {time}"
    yield _alert(
        name="AntiphonCertificateExpiring",
        severity="warning",
        expression=f"{expiry} < {thresholds.certificate_days * DAY:.0f}",
        summary=text,
        description=f"{text}. After that, clients refuse to connect.",
    )
    yield _alert(
        name="AntiphonCertificateExpiresSoon",
        severity="critical",
        expression=f"{expiry} < {thresholds.certificate_days_critical * DAY:.0f}",
        summary=text,
        description=f"{text}, or has expired if that is negative. Clients refuse to connect then.",
    )


def _connection_alerts(thresholds: Thresholds, duration: Durations) -> Iterator[Alert]:
    window = duration(5 * MINUTE)
    yield _cause(
        name="AntiphonConnectionsNearLimit",
        expression=f"antiphon_connections_open / antiphon_connections_limit > {thresholds.connections_share:g}",
        hold=2 * MINUTE,
        summary="{at} has {percent} of its connections open",
        description="{at} has {percent} of the connections open that --max-connections allows.",
    )
    yield _cause(
        name="AntiphonConnectionsRefused",
        expression=f"increase(antiphon_connections_refused_total[{window}]) > 0",
        summary="{at} refuses connections",
        description="{at} refused {count} connections within 5 minutes, since --max-connections were open.",
    )
    yield _cause(
        name="AntiphonConnectionsEvicted",
        expression=f"increase(antiphon_connections_evicted_total[{window}]) > {thresholds.connections_evicted}",
        summary="{at} closes idle connections for lack of room",
        description="{at} closed {count} connections that sent nothing within 5 minutes, to make room for others. Some "
        "clients keep many connections open, or an attacker opens them to shut others out.",
    )


def _cause(name: str, expression: str, summary: str, description: str, hold: float = 0.0) -> Alert:
    """A warning that may explain why an objective is missed."""
    return replace(_alert(name, "warning", expression, summary, description, hold), is_cause=True)


def _alert(name: str, severity: Severity, expression: str, summary: str, description: str, hold: float = 0.0) -> Alert:
    return Alert(name, severity, expression, _text(summary), _text(description), hold)


def _text(text: str) -> str:
    """Put Prometheus' templates in place of ours."""
    for name, template in _IN_TEXTS.items():
        text = text.replace(name, template)
    return text


def _increase(series: str, window: str) -> str:
    """How many there were within the window, of one server."""
    return f"sum by ({_SERVER}) (increase({series}[{window}]))"


def _accounts() -> str:
    """How many requests are missing: received = refused + accepted + arriving, accepted = ended + running."""

    def total(what: str) -> str:
        return f"sum by ({_SERVER}) (antiphon_requests_{what})"

    received = " - ".join(map(total, ("received_total", "refused_total", "accepted_total", "arriving")))
    accepted = " - ".join(map(total, ("accepted_total", "finished_total", "aborted_total", "failed_total", "running")))
    return f"abs({received})\n+ abs({accepted}) > 0"

"""Rows of the dashboard about the machine or container: memory, processor, connections and the event loop."""

from __future__ import annotations

from antiphon.monitoring.panels import Panel, Query, Row, limits
from antiphon.monitoring.queries import largest, quantiles, rate, share, smallest, total

_PROCESS = "{{process}} {{engine}}"
_BY_PROCESS = "process, engine"

MEMORY = Row(
    "Memory",
    [
        Panel(
            "Memory and its limit",
            "Memory in use, as the container's limit counts it, and that limit or the machine's memory. At the limit "
            "the kernel ends an engine. Lower `--kv-cache-tokens`, or allow more memory.",
            [
                Query(total("antiphon_memory_used_bytes", by="instance"), "used, {{instance}}"),
                Query(total("antiphon_memory_limit_bytes", by="instance"), "limit, {{instance}}"),
            ],
            unit="bytes",
            document="troubleshooting.md",
        ),
        Panel(
            "Memory in use",
            "The same as a share of the limit.",
            [
                Query(
                    f"{total('antiphon_memory_used_bytes', by='instance')} / "
                    f"{total('antiphon_memory_limit_bytes', by='instance')}",
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            highest=1,
            thresholds=limits(0.85, 0.95),
            document="troubleshooting.md",
        ),
        Panel(
            "Resident memory by process",
            "Memory of each process that is not swapped out, of which pages of the model's file may be shared.",
            [Query(total("antiphon_process_resident_memory_bytes", by=_BY_PROCESS), _PROCESS)],
            unit="bytes",
            stacked=True,
            document="metrics.md#processes-and-machine",
        ),
        Panel(
            "Shared memory by process",
            "The part of the resident memory that several processes may count: pages of files, and shared memory.",
            [Query(total("antiphon_process_shared_memory_bytes", by=_BY_PROCESS), _PROCESS)],
            unit="bytes",
            document="metrics.md#processes-and-machine",
        ),
        Panel(
            "Stored responses and their limit",
            "Memory of responses that are kept to be continued, or run in the background, and its limit "
            "(`--max-stored-bytes`). At the limit the oldest are dropped.",
            [
                Query(total("antiphon_stored_responses_bytes"), "stored"),
                Query(total("antiphon_stored_responses_limit_bytes"), "limit"),
            ],
            unit="bytes",
            document="settings.md#load",
        ),
        Panel(
            "Stored responses",
            "Responses of `/v1/responses` that are kept to be continued.",
            [Query(total("antiphon_stored_responses", by="instance"), "{{instance}}")],
            document="api.md",
        ),
    ],
)

PROCESSOR = Row(
    "Processor",
    [
        Panel(
            "Processors in use and their limit",
            "Processors that each process keeps busy. The limit is the container's quota, or the processors that are "
            "allowed. Engines that use all of it are at full speed.",
            [
                Query(rate("antiphon_process_cpu_seconds_total", by=_BY_PROCESS), _PROCESS),
                Query(total("antiphon_cpu_limit_cores"), "limit"),
            ],
            unit="none",
            document="metrics.md#processes-and-machine",
        ),
        Panel(
            "Throttled periods",
            "Share of the periods in which the CPU quota was used up. Then all threads stop for the rest of the "
            "period, and answers stutter: raise the quota, or lower `--threads`.",
            [
                Query(
                    share(
                        rate("antiphon_cpu_throttled_periods_total", by="instance"),
                        rate("antiphon_cpu_periods_total", by="instance"),
                    ),
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            highest=1,
            thresholds=limits(0.1, 0.25),
            document="troubleshooting.md",
        ),
        Panel(
            "Throttled time",
            "Seconds per second that threads were stopped because the CPU quota was used up, added over processors.",
            [Query(rate("antiphon_cpu_throttled_seconds_total", by="instance"), "{{instance}}")],
            unit="none",
            document="troubleshooting.md",
        ),
        Panel(
            "Pressure",
            "Share of the time in which at least one task waited for a resource. `memory` or `io` above a few percent "
            "means that the machine is short of memory.",
            [
                Query(
                    rate("antiphon_pressure_waiting_seconds_total", by="instance, resource"),
                    "{{resource}}, {{instance}}",
                )
            ],
            unit="percentunit",
            no_value="The kernel does not measure pressure",
            document="metrics.md#processes-and-machine",
        ),
        Panel(
            "Full pressure",
            "Share of the time in which all tasks waited for a resource, so that nothing was done.",
            [
                Query(
                    rate("antiphon_pressure_stalled_seconds_total", by="instance, resource"),
                    "{{resource}}, {{instance}}",
                )
            ],
            unit="percentunit",
            no_value="The kernel does not measure pressure",
            document="metrics.md#processes-and-machine",
        ),
        Panel(
            "Threads",
            "Threads of each process. More compute threads than processors slow an engine down.",
            [Query(total("antiphon_process_threads", by=_BY_PROCESS), _PROCESS)],
            unit="none",
            document="metrics.md#processes-and-machine",
        ),
    ],
)

CONNECTIONS = Row(
    "Connections and event loop",
    [
        Panel(
            "Open connections and their limit",
            "Connections of clients, and how many may be open (`--max-connections`). At the limit idle ones are "
            "closed, then new ones refused.",
            [
                Query(total("antiphon_connections_open"), "open"),
                Query(total("antiphon_connections_limit"), "limit"),
            ],
            document="settings.md#connections",
        ),
        Panel(
            "New connections",
            "Connections per second: accepted, refused because of the limit, and idle ones closed to make room.",
            [
                Query(rate("antiphon_connections_accepted_total"), "accepted"),
                Query(rate("antiphon_connections_refused_total"), "refused"),
                Query(rate("antiphon_connections_evicted_total"), "evicted"),
            ],
            unit="cps",
            document="settings.md#connections",
        ),
        Panel(
            "Open files and their limit",
            "File descriptors of the front, and how many it may open. At the limit new connections wait.",
            [
                Query(largest("process_open_fds", by="instance"), "open, {{instance}}"),
                Query(largest("process_max_fds", by="instance"), "limit, {{instance}}"),
            ],
            unit="none",
            document="troubleshooting.md",
        ),
        Panel(
            "Event loop lag",
            "How late a timer of the front ran. Above 0.1 s everybody's tokens are late: the process is short of "
            "processor time, or something blocks it.",
            quantiles("antiphon_event_loop_lag_seconds"),
            unit="s",
            thresholds=limits(0.1, 0.5),
            document="troubleshooting.md",
        ),
        Panel(
            "Event loop lag, distribution",
            "How late timers of the front ran, and how often.",
            [Query(rate("antiphon_event_loop_lag_seconds_bucket", by="le"), "{{le}}")],
            kind="heatmap",
            document="metrics.md#processes-and-machine",
        ),
        Panel(
            "Open files by process",
            "File descriptors of each process. A number that only grows is a leak, please report it.",
            [Query(total("antiphon_process_open_fds", by=_BY_PROCESS), _PROCESS)],
            unit="none",
            document="metrics.md#processes-and-machine",
        ),
        Panel(
            "Time until the certificate expires",
            "Renew the certificate in time, then `antiphon reload`: the server reads it again without a pause.",
            [
                Query(
                    f"{smallest('antiphon_tls_certificate_not_after_timestamp_seconds', by='instance')} - time()",
                    "{{instance}}",
                )
            ],
            unit="s",
            kind="stat",
            thresholds=((None, "red"), (2 * 86400, "orange"), (14 * 86400, "green")),
            lowest=None,
            no_value="The server does not use TLS",
            document="troubleshooting.md#antiphoncertificateexpiring",
        ),
        Panel(
            "Age of the processes",
            "Time since each process started. An engine that is younger than the front was replaced.",
            [
                Query(
                    f"time() - {largest('antiphon_process_start_time_seconds', by=f'instance, {_BY_PROCESS}')}",
                    "{{instance}} {{process}} {{engine}}",
                )
            ],
            unit="s",
            document="metrics.md#processes-and-machine",
        ),
    ],
)

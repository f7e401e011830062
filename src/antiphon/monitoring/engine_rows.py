"""Rows of the dashboard about the engines: steps against their limits, the KV cache, and what goes wrong."""

from __future__ import annotations

from antiphon.monitoring.panels import BAD_ABOVE_ZERO, Panel, Query, Row, limits
from antiphon.monitoring.queries import increase, largest, rate, series, share, total

_OF_ENGINE = "{{instance}} engine {{engine}}"
_BY_ENGINE = "instance, engine"

ENGINE = Row(
    "Engines and steps",
    [
        Panel(
            "Busy engines",
            "Share of the time that engines spend in steps. Near 100 % they have no idle time; that is efficient, and "
            "from then on more load means more waiting.",
            [
                Query(
                    share(
                        rate("antiphon_engine_busy_seconds_total", by="instance"),
                        total("antiphon_engine_ready", by="instance"),
                    ),
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            highest=1,
            document="metrics.md#engines",
        ),
        Panel(
            "Sequences and their limit",
            "Answers that engines compute at the same time, and those that wait for a place. The limit is "
            "`--max-num-seqs` times the engines.",
            [
                Query(total("antiphon_sequences_running"), "running"),
                Query(total("antiphon_sequences_waiting"), "waiting"),
                Query(
                    f"sum ({total('antiphon_engine_ready', by='instance')} * on (instance) "
                    f"{largest('antiphon_sequences_limit', by='instance')})",
                    "limit",
                ),
            ],
            document="settings.md#load",
        ),
        Panel(
            "Computed tokens",
            "Tokens computed per second, prompts included, and tokens generated. The difference is work on prompts.",
            [
                Query(rate("antiphon_computed_tokens_total"), "computed"),
                Query(rate("antiphon_generated_tokens_total"), "generated"),
            ],
            unit="none",
            document="metrics.md#engines",
        ),
        Panel(
            "Step duration and its target",
            "The duration of an engine's last step, and the mean of all steps. Prompts are split so that a step stays "
            "below the target (`--target-step-seconds`) while somebody waits.",
            [
                Query(largest("antiphon_step_seconds", by=_BY_ENGINE), _OF_ENGINE),
                Query(share(rate("antiphon_engine_busy_seconds_total"), rate("antiphon_steps_total")), "mean"),
                Query(largest("antiphon_step_target_seconds"), "target"),
            ],
            unit="s",
            document="settings.md#load",
        ),
        Panel(
            "Tokens in a step and their limit",
            "Tokens computed in an engine's last step, and the mean of all steps. The limit is `--max-batch-tokens`.",
            [
                Query(largest("antiphon_step_tokens", by=_BY_ENGINE), _OF_ENGINE),
                Query(share(rate("antiphon_computed_tokens_total"), rate("antiphon_steps_total")), "mean"),
                Query(largest("antiphon_step_tokens_limit"), "limit"),
            ],
            unit="none",
            document="settings.md#load",
        ),
        Panel(
            "Steps",
            "Steps computed per second, of all engines together. Each step gives every running answer a token.",
            [Query(rate("antiphon_steps_total"), "steps")],
            unit="ops",
            document="metrics.md#engines",
        ),
        Panel(
            "Engines and autoscaling",
            "Engines that were started, those that the settings or the load ask for, and the most that autoscaling may "
            "reach (`--max-engines`; 0: it is off).",
            [
                Query(total("antiphon_engines"), "started"),
                Query(total("antiphon_engines_wanted"), "wanted"),
                Query(total("antiphon_engines_limit"), "limit"),
            ],
            document="settings.md#autoscaling",
        ),
        Panel(
            "Wait of a new request",
            "How long a request that comes now would wait before an engine begins with it. Autoscaling adds engines "
            "while this is above `--autoscale-target-wait`.",
            [Query(largest("antiphon_forecast_wait_seconds", by="instance"), "{{instance}}")],
            unit="s",
            document="settings.md#autoscaling",
        ),
    ],
)

CACHE = Row(
    "KV cache and prefix cache",
    [
        Panel(
            "KV cache in use",
            "Share of an engine's KV cache that running answers use. Near 100 % answers are preempted and computed "
            "again: raise `--kv-cache-tokens` or lower `--max-num-seqs`.",
            [Query(largest("antiphon_kv_cache_usage_ratio", by=_BY_ENGINE), _OF_ENGINE)],
            unit="percentunit",
            highest=1,
            thresholds=limits(0.8, 0.95),
            width=6,
            document="metrics.md#engines",
        ),
        Panel(
            "KV cache in tokens",
            "Tokens that the KV cache has room for. Cached ones are free, but a prompt that begins alike can use their "
            "contents.",
            [
                Query(
                    f"sum by (state) ({total('antiphon_kv_blocks', by='instance, state')} "
                    f"* on (instance) group_left () {largest('antiphon_kv_block_tokens', by='instance')})",
                    "{{state}}",
                )
            ],
            unit="none",
            stacked=True,
            width=6,
            document="metrics.md#engines",
        ),
        Panel(
            "Prefix cache hits",
            "Share of the prompts' tokens that were found in the cache, so that nobody had to compute them again.",
            [
                Query(
                    share(rate("antiphon_prefix_cache_hits_total"), rate("antiphon_prefix_cache_queries_total")),
                    "looked up by engines",
                ),
                Query(
                    share(rate("antiphon_prompt_tokens_cached_total"), rate("antiphon_prompt_tokens_total")),
                    "of ended requests",
                ),
            ],
            unit="percentunit",
            highest=1,
            width=6,
            document="metrics.md#engines",
        ),
        Panel(
            "Preemptions",
            "Answers per window that lost their place because the KV cache was full, and were computed again later. "
            "If they go on, the cache is too small for this load.",
            [Query(increase("antiphon_preemptions_total", by="instance"), "{{instance}}")],
            width=6,
            thresholds=BAD_ABOVE_ZERO,
            document="metrics.md#engines",
        ),
        Panel(
            "Equal requests",
            "Requests per second that were not computed, because an equal one was at the same time.",
            [Query(rate("antiphon_requests_shared_total"), "shared")],
            width=6,
            document="metrics.md#engines",
        ),
        Panel(
            "Drafts",
            "Tokens per second that were drafted and verified, and those that were right. Each of these saved its "
            "answer a step. There are few where text does not repeat, or many answers are computed at once.",
            [
                Query(rate("antiphon_draft_tokens_total"), "verified"),
                Query(rate("antiphon_draft_tokens_accepted_total"), "right"),
            ],
            width=6,
            document="metrics.md#engines",
        ),
        Panel(
            "Time saved by drafts",
            "Share of the time that is saved by drafts, less what they cost: 1 means that answers would have taken "
            "twice as long without. Estimated from what steps with and without drafts took.",
            [
                Query(
                    f"{rate('antiphon_draft_saved_seconds_total')} - {rate('antiphon_draft_spent_seconds_total')}",
                    "saved",
                )
            ],
            width=6,
            document="metrics.md#engines",
        ),
    ],
)

FAULTS = Row(
    "Faults",
    [
        Panel(
            "Engine state",
            "Whether each engine accepts work. One that is not ready loads, restarts or was drained; `/ready` says "
            "which.",
            [Query(largest("antiphon_engine_ready", by=_BY_ENGINE), _OF_ENGINE)],
            kind="state-timeline",
            states={"0": ("not ready", "red"), "1": ("ready", "green")},
            document="troubleshooting.md",
        ),
        Panel(
            "Engine restarts",
            "Engines per window that died, hung or could not be started, and were replaced. Answers continue on "
            "another engine; the log says how each ended.",
            [Query(increase("antiphon_engine_restarts_total", by="instance"), "{{instance}}")],
            thresholds=BAD_ABOVE_ZERO,
            document="troubleshooting.md",
        ),
        Panel(
            "Inexact continuations",
            "Answers per window that moved to an engine with other arithmetic. They continued from the tokens already "
            "sent, but not as one engine alone would have continued them. Serve with engines of one version on x86-64.",
            [Query(increase("antiphon_inexact_continuations_total", by="instance"), "{{instance}}")],
            thresholds=BAD_ABOVE_ZERO,
            document="api.md#fingerprints",
        ),
        Panel(
            "Breaker state",
            "Open: the engine kept failing, so new requests are refused for a while. Half-open: one request tries "
            "whether it works again.",
            [Query(largest("antiphon_breaker_state", by=_BY_ENGINE), _OF_ENGINE)],
            kind="state-timeline",
            states={"0": ("closed", "green"), "1": ("half-open", "orange"), "2": ("open", "red")},
            document="settings.md#when-the-engine-keeps-failing",
        ),
        Panel(
            "Breaker openings",
            "How often, per window, an engine's breaker opened.",
            [Query(increase("antiphon_breaker_opened_total", by="instance"), "{{instance}}")],
            thresholds=BAD_ABOVE_ZERO,
            document="settings.md#when-the-engine-keeps-failing",
        ),
        Panel(
            "HTTP responses by status",
            "Responses per second of any route. 499: the client disconnected before the response.",
            [Query(rate("antiphon_http_responses_total", by="status"), "{{status}}")],
            unit="reqps",
            stacked=True,
            document="api.md",
        ),
        Panel(
            "Server errors",
            "Responses per second with status 5xx, by route, and accepted requests that failed. 503 also means "
            "overload; for all others the log says why.",
            [
                Query(
                    rate("antiphon_http_responses_total", 'status=~"5.."', by="route, status"),
                    "{{status}} {{route}}",
                ),
                Query(rate("antiphon_requests_failed_total"), "failed after they were accepted"),
            ],
            unit="reqps",
            stacked=True,
            document="troubleshooting.md",
        ),
        Panel(
            "Unbalanced accounts",
            "Accepted requests minus those that ended or still run, in each scrape. Always 0: anything else is a "
            "mistake in the server, please report it.",
            [
                Query(
                    " - ".join(
                        total(f"antiphon_requests_{what}", by="instance")
                        for what in ("accepted_total", "finished_total", "aborted_total", "failed_total", "running")
                    ),
                    "{{instance}}",
                )
            ],
            lowest=None,
            thresholds=BAD_ABOVE_ZERO,
            document="metrics.md#requests",
        ),
        Panel(
            "Scrape duration",
            "How long Prometheus waited for the server's metrics. If it grows, the server's process is short of "
            "processor time.",
            [Query(f"max by (instance) ({series('scrape_duration_seconds')})", "{{instance}}")],
            unit="s",
            thresholds=limits(1, 5),
            document="troubleshooting.md",
        ),
        Panel(
            "Dropped log lines and spans",
            "Log lines per window that could not be written in time, because the reader of the log is too slow or the "
            "disk is full, and spans of traces that their collector did not take.",
            [
                Query(increase("antiphon_log_lines_dropped_total", by="log"), "log: {{log}}"),
                Query(increase("antiphon_trace_spans_dropped_total", by="reason"), "spans: {{reason}}"),
            ],
            thresholds=BAD_ABOVE_ZERO,
            document="troubleshooting.md#antiphonloglinesdropped",
        ),
        Panel(
            "Exported spans",
            "Spans of traces per second that the collector has taken; 0 without traces.",
            [Query(rate("antiphon_trace_spans_exported_total"), "spans")],
            unit="ops",
            document="tracing.md",
        ),
        Panel(
            "Versions and models",
            "What runs on each server.",
            [Query(largest("antiphon_build_info", by="instance, version, python_version, model"), "")],
            kind="table",
            document="metrics.md#build",
        ),
    ],
)

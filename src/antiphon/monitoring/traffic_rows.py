"""Rows of the dashboard about requests: overview, load and admission, overload, keys."""

from __future__ import annotations

from antiphon.monitoring.panels import BAD_ABOVE_ZERO, Panel, Query, Row, limits
from antiphon.monitoring.queries import increase, largest, quantile, quantiles, rate, series, share, total

_STAT = 4  # the width of a number

OVERVIEW = Row(
    "Overview",
    [
        Panel(
            "Servers up",
            "Servers that answered Prometheus' last scrape, of all that it knows. If one is missing, look at its log.",
            [Query(f"sum ({series('up')})", "up"), Query(f"count ({series('up')})", "known")],
            kind="stat",
            width=_STAT,
            height=4,
            thresholds=((None, "red"), (1, "green")),
            document="troubleshooting.md",
        ),
        Panel(
            "Request rate",
            "Generation requests that arrive per second, whether they are accepted or refused.",
            [Query(rate("antiphon_requests_received_total"), "requests")],
            unit="reqps",
            kind="stat",
            width=_STAT,
            height=4,
            document="metrics.md#requests",
        ),
        Panel(
            "Unfinished requests",
            "Accepted requests that have not ended.",
            [Query(total("antiphon_requests_running"), "unfinished")],
            kind="stat",
            width=_STAT,
            height=4,
            document="metrics.md#requests",
        ),
        Panel(
            "First token, P95",
            "95 % of the requests had their first token within this time.",
            [Query(quantile(0.95, "antiphon_time_to_first_token_seconds"), "P95")],
            unit="s",
            kind="stat",
            width=_STAT,
            height=4,
            thresholds=limits(5, 30),
            document="metrics.md#tokens",
        ),
        Panel(
            "Generated tokens",
            "Tokens generated per second, of all answers together.",
            [Query(rate("antiphon_generated_tokens_total"), "tokens/s")],
            unit="none",
            kind="stat",
            width=_STAT,
            height=4,
            decimals=0,
            document="metrics.md#tokens",
        ),
        Panel(
            "Refused share",
            "Share of the requests that were refused because there was too much work, or the engine kept failing.",
            [
                Query(
                    share(rate("antiphon_shed_requests_total"), rate("antiphon_requests_received_total")),
                    "refused",
                )
            ],
            unit="percentunit",
            kind="stat",
            width=_STAT,
            height=4,
            thresholds=limits(0.01, 0.1),
            document="overload.md",
        ),
    ],
)

ALERTS = Row(
    "Alerts",
    [
        Panel(
            "Firing alerts",
            "Alerts that fire now. The documentation says what each means and what to do about it.",
            [
                Query(
                    largest("ALERTS", 'alertstate="firing"', by="alertname, severity, job, instance"),
                    "{{alertname}} {{instance}}",
                )
            ],
            kind="table",
            width=24,
            height=5,
            no_value="No alert fires",
            document="troubleshooting.md#alarms",
        )
    ],
)

LOAD = Row(
    "Load and admission",
    [
        Panel(
            "Requests by outcome",
            "Requests per second: received, and how they ended. Aborted: the client left. Failed: the server is at "
            "fault, so its log says why. Refused requests are shown by reason beside this.",
            [
                Query(rate("antiphon_requests_received_total"), "received"),
                Query(rate("antiphon_requests_accepted_total"), "accepted"),
                Query(rate("antiphon_requests_finished_total"), "finished"),
                Query(rate("antiphon_requests_aborted_total"), "aborted"),
                Query(rate("antiphon_requests_failed_total"), "failed"),
                Query(rate("antiphon_requests_refused_total"), "refused"),
            ],
            unit="reqps",
            document="metrics.md#requests",
        ),
        Panel(
            "Refusals by code",
            "Refused requests per second, by the code of the error that the client got. `server_overloaded` means more "
            "work than the server can do in time; `rate_limit_exceeded` that a key is over its limit; most others are "
            "mistakes of clients.",
            [Query(rate("antiphon_requests_refused_total", by="code"), "{{code}}")],
            unit="reqps",
            stacked=True,
            document="api.md",
        ),
        Panel(
            "Requests by endpoint",
            "Requests per second, by the API that clients use.",
            [Query(rate("antiphon_requests_received_total", by="endpoint"), "{{endpoint}}")],
            unit="reqps",
            stacked=True,
            document="metrics.md#requests",
        ),
        Panel(
            "Unfinished requests and their limit",
            "Accepted requests that have not ended, with those not decided on yet. At the limit "
            "(`--max-queued-requests`) new ones are refused with 503.",
            [
                Query(total("antiphon_requests_running"), "accepted"),
                Query(total("antiphon_requests_arriving"), "arriving"),
                Query(total("antiphon_requests_limit"), "limit"),
            ],
            document="settings.md#overload",
        ),
        Panel(
            "Predicted wait and its limit",
            "Time to the first token as predicted when a request arrives. Requests that would wait longer than "
            "`--max-wait` or their own deadline are refused at once. If it is often near the limit, add a server.",
            [
                *quantiles("antiphon_predicted_wait_seconds"),
                Query(largest("antiphon_wait_limit_seconds"), "limit (0: none)"),
            ],
            unit="s",
            document="settings.md#overload",
        ),
        Panel(
            "Work owed",
            "Tokens that engines still have to compute for unfinished requests: of prompts, and the expected ones of "
            "answers. Divided by the computed tokens per second it is the time until the queue is empty.",
            [Query(total("antiphon_tokens_owed", by="instance, engine"), "{{instance}} engine {{engine}}")],
            unit="none",
            stacked=True,
            document="metrics.md#waiting",
        ),
        Panel(
            "Prompt lengths",
            "Tokens in the prompts of accepted requests. Long prompts delay the first token of all requests.",
            quantiles("antiphon_request_prompt_tokens"),
            unit="none",
            document="metrics.md#tokens",
        ),
        Panel(
            "Answer lengths",
            "Tokens generated for a request, thought and all choices included.",
            quantiles("antiphon_request_generated_tokens"),
            unit="none",
            document="metrics.md#tokens",
        ),
        Panel(
            "Retries",
            "Requests per second whose client says that it sent them before. Many retries mean that clients do not "
            "wait as long as `Retry-After` says.",
            [Query(rate("antiphon_retries_seen_total"), "retries")],
            unit="reqps",
            document="overload.md",
        ),
    ],
)

OVERLOAD = Row(
    "Overload",
    [
        Panel(
            "Degrade level",
            "The level of `--degrade` that applies to new requests. From 1 on, limits of thoughts and answers are "
            "lowered, then requests are refused. If it stays above 0, add a server or lower the load.",
            [Query(largest("antiphon_degrade_level", by="instance"), "{{instance}}")],
            unit="none",
            thresholds=limits(1, 3),
            decimals=0,
            document="settings.md#degrading",
        ),
        Panel(
            "Shed requests",
            "Requests per second that were refused or dropped because of too much work, by reason.",
            [Query(rate("antiphon_shed_requests_total", by="reason"), "{{reason}}")],
            unit="reqps",
            stacked=True,
            document="metrics.md#waiting",
        ),
        Panel(
            "Degraded requests",
            "Accepted requests per second whose limits were lowered, by level.",
            [Query(rate("antiphon_degraded_requests_total", by="step"), "level {{step}}")],
            unit="reqps",
            stacked=True,
            no_value="No request was degraded",
            document="settings.md#degrading",
        ),
    ],
)

KEYS = Row(
    "API keys",
    [
        Panel(
            "Requests by key",
            "Requests per second to any route, by the name of the API key.",
            [Query(rate("antiphon_key_requests_total", by="key"), "{{key}}")],
            unit="reqps",
            stacked=True,
            width=6,
            no_value="The server has no API keys",
            document="settings.md#api-keys",
        ),
        Panel(
            "Tokens by key",
            "Tokens per second of prompts and answers, by the name of the API key.",
            [Query(rate("antiphon_key_tokens_total", by="key, kind"), "{{key}}, {{kind}}")],
            unit="none",
            stacked=True,
            width=6,
            no_value="The server has no API keys",
            document="settings.md#api-keys",
        ),
        Panel(
            "Requests over a rate limit",
            "Requests per second that were refused with 429, by key and limit (requests or tokens per minute).",
            [Query(rate("antiphon_key_rate_limited_total", by="key, limit"), "{{key}}, {{limit}}")],
            unit="reqps",
            stacked=True,
            width=6,
            no_value="The server has no API keys",
            document="settings.md#rates",
        ),
        Panel(
            "Requests without a valid key",
            "Requests per window without a valid API key. Many come from a client with an old key, or from somebody "
            "who guesses.",
            [Query(increase("antiphon_requests_unauthorized_total", by="instance"), "{{instance}}")],
            width=6,
            thresholds=BAD_ABOVE_ZERO,
            document="settings.md#api-keys",
        ),
    ],
)

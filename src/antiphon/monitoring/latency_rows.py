"""Rows of the dashboard about time: latency, thoughts and answers."""

from __future__ import annotations

from antiphon.monitoring.panels import Panel, Query, Row
from antiphon.monitoring.queries import mean, quantile, quantiles, rate

LATENCY = Row(
    "Latency",
    [
        Panel(
            "Time to the first token",
            "From a request's arrival to its first token: waiting, and reading the prompt.",
            quantiles("antiphon_time_to_first_token_seconds"),
            unit="s",
            document="metrics.md#tokens",
        ),
        Panel(
            "Time to the first token, distribution",
            "How many requests per second had their first token after how long. Two bands often mean short and long "
            "prompts, or cached and new ones.",
            [Query(rate("antiphon_time_to_first_token_seconds_bucket", by="le"), "{{le}}")],
            kind="heatmap",
            document="metrics.md#tokens",
        ),
        Panel(
            "Queue wait",
            "From a request's arrival until the engine began with it. If most of the time to the first token is spent "
            "here, the server is at its limit.",
            quantiles("antiphon_queue_wait_seconds"),
            unit="s",
            document="settings.md#overload",
        ),
        Panel(
            "Queue wait, distribution",
            "How many requests per second waited how long for the engine.",
            [Query(rate("antiphon_queue_wait_seconds_bucket", by="le"), "{{le}}")],
            kind="heatmap",
            document="settings.md#overload",
        ),
        Panel(
            "Time between tokens",
            "Between two tokens of one answer: what a reader sees as speed. Gaps grow with the number of answers that "
            "are computed at the same time, and with long prompts between them.",
            quantiles("antiphon_inter_token_latency_seconds"),
            unit="s",
            document="metrics.md#tokens",
        ),
        Panel(
            "Time per output token",
            "The mean time between two tokens of a choice, for each choice when its request ends.",
            quantiles("antiphon_time_per_output_token_seconds"),
            unit="s",
            document="metrics.md#tokens",
        ),
        Panel(
            "Request duration",
            "From arrival to end of accepted requests, however they ended.",
            quantiles("antiphon_request_duration_seconds"),
            unit="s",
            document="metrics.md#requests",
        ),
        Panel(
            "Request duration by endpoint, P95",
            "95 % of the requests to an endpoint ended within this time.",
            [Query(quantile(0.95, "antiphon_request_duration_seconds", by="endpoint"), "{{endpoint}}")],
            unit="s",
            document="metrics.md#requests",
        ),
        Panel(
            "Missed deadlines",
            "Accepted requests per second that were dropped in the queue after their `max_wait`, or ended by their "
            "`timeout`. A few are normal under overload; many mean that predictions are wrong, or clients impatient.",
            [Query(rate("antiphon_deadline_missed_total"), "missed")],
            unit="reqps",
            document="overload.md",
        ),
    ],
)

THOUGHT = Row(
    "Thoughts and answers",
    [
        Panel(
            "Tokens in thoughts and answers",
            "Generated tokens per second. Those of thoughts are counted when their request ends, so they lag behind.",
            [
                Query(rate("antiphon_generated_tokens_total"), "generated"),
                Query(rate("antiphon_reasoning_tokens_total"), "in thoughts"),
            ],
            unit="none",
            document="metrics.md#tokens",
        ),
        Panel(
            "Time to the first answer",
            "From a request's arrival to the first text, or call, after its thought: how long a reader waits who does "
            "not see the thought.",
            quantiles("antiphon_time_to_first_answer_seconds"),
            unit="s",
            document="metrics.md#waiting",
        ),
        Panel(
            "Thinking time",
            "The mean time to the first answer, and to the first token. The difference is spent on thoughts; a "
            "`thinking_budget` limits it.",
            [
                Query(mean("antiphon_time_to_first_answer_seconds"), "first answer"),
                Query(mean("antiphon_time_to_first_token_seconds"), "first token"),
            ],
            unit="s",
            document="metrics.md#waiting",
        ),
        Panel(
            "Finish reasons",
            "Complete choices per second. Many with `length` were cut off: `max_tokens` is too low for the question, "
            "or the model repeats itself.",
            [Query(rate("antiphon_choices_finished_total", by="finish_reason"), "{{finish_reason}}")],
            unit="ops",
            stacked=True,
            width=12,
            document="metrics.md#tokens",
        ),
        Panel(
            "Thoughts closed by the server",
            "Thoughts per second that the server closed, because their budget was used up or they repeated themselves.",
            [Query(rate("antiphon_thoughts_closed_total", by="reason"), "{{reason}}")],
            unit="ops",
            stacked=True,
            width=12,
            document="metrics.md#tokens",
        ),
    ],
)

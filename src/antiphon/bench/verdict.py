"""The result of a load test in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from antiphon.bench.records import CheckRecord
from antiphon.bench.summary import StageSummary, Summary
from antiphon.bench.svg import shown

METRICS = {
    "first_token": "first token",
    "first_answer": "first answer token",
    "between_tokens": "time between tokens",
    "time_per_token": "time per token",
    "end_to_end": "end to end",
    "lateness": "lateness of sending",
}


LATE_CLIENT = (
    "The client was late itself, so the latencies are too high. Give it a processor core of its own, another machine, "
    "or fewer users."
)
Kind = Literal["good", "bad", "doubtful", "plain"]


@dataclass(frozen=True)
class Conclusion:
    """`kind` is `good` or `bad` if there was something to pass, `doubtful` if the figures can't be trusted."""

    kind: Kind
    word: str
    sentence: str


def conclude(summary: Summary) -> Conclusion:
    """The most important thing to say of a run: what is not valid, what failed, or how fast the server was."""
    if not summary.stages:
        return Conclusion("doubtful", "No result", "No stage was completed, so there are no figures.")
    figures = f"{_figures(summary)} {_answered(summary.stages)}"
    if any(stage.interrupted for stage in summary.stages):
        figures += " The run was interrupted."
    failed = [check for check in summary.checks if not check.passed]
    verdicts = [verdict for stage in summary.stages for verdict in stage.objectives]
    has_missed = summary.knee is None and not all(verdict.met for verdict in verdicts)
    missed = f"{_missed(summary.stages)} " if has_missed else ""
    if failed:
        is_late = any(check.check == "lag" for check in failed)
        kind, word = ("doubtful", "Not valid") if is_late else ("bad", "Check failed")
        return Conclusion(cast(Kind, kind), word, f"{_checks(failed)} {missed}{figures}")
    if summary.knee is not None:
        found = summary.knee.load is not None
        return Conclusion("good" if found else "bad", "Knee", f"{summary.knee.sentence} {figures}")
    if not verdicts:
        return Conclusion("plain", "Result", figures)
    if has_missed:
        return Conclusion("bad", "Missed", f"{missed}{figures}")
    return Conclusion("good", "Passed", f"{_all_met(summary)} {figures}")


def _checks(failed: Sequence[CheckRecord]) -> str:
    """A sentence for each kind of check that failed, the most important first."""
    kinds = {check.check for check in failed}
    unread = all(check.compared == 0 for check in failed if check.check == "accounts")
    sentences = {
        "lag": LATE_CLIENT,
        "same": "Answers under load differ from the same requests' answers alone.",
        "accounts": "The server's counters could not be read after the load, so nothing was compared with them."
        if unread
        else "The server's counters do not agree with what the client saw.",
    }
    return " ".join(text for name, text in sentences.items() if name in kinds)


def _all_met(summary: Summary) -> str:
    count = len(summary.stages[0].objectives)
    which = "The objective was" if count == 1 else f"All {count} objectives were"
    return f"{which} met{'' if len(summary.stages) == 1 else ' in every stage'}."


def _missed(stages: Sequence[StageSummary]) -> str:
    names = list(dict.fromkeys(each.objective for stage in stages for each in stage.objectives if not each.met))
    if len(stages) == 1:
        return f"Not met: {', '.join(names)}."
    parts = []
    for name in names:
        missed = [stage.label for stage in stages if any(v.objective == name and not v.met for v in stage.objectives)]
        where = missed[0] if len(missed) == 1 else f"{len(missed)} of {len(stages)} stages, first {missed[0]}"
        parts.append(f"{name} ({where})")
    return f"Not met: {', '.join(parts)}."


def _figures(summary: Summary) -> str:
    stages = summary.stages
    best = max(stages, key=lambda stage: stage.output_tokens_per_second)
    medians = [each.latency.first_token.p50 for each in stages if each.latency.first_token]
    if len(stages) > 1 and len({stage.label for stage in stages}) > 1 and medians:
        text = (
            f"From {stages[0].label} to {stages[-1].label}, the median first token came after {shown(min(medians))} to "
            f"{shown(max(medians))} s; the highest rate was {shown(best.output_tokens_per_second)} output tokens/s, "
            f"at {best.label}."
        )
    elif medians:
        found = best.latency.first_token
        assert found is not None
        text = (
            f"With {best.label}, half of the first tokens came within {shown(found.p50)} s and 95 % within "
            f"{shown(found.p95)} s, at {shown(best.output_tokens_per_second)} output tokens/s."
        )
    else:
        text = "No token came."
    return " ".join([text, *_within(summary)])


def _within(summary: Summary) -> list[str]:
    sentences = []
    for each in summary.users_within:
        limit = f"{shown(each.limit)} s"
        if each.users is None:
            sentences.append(f"The mean {METRICS[each.metric]} was never within {limit}.")
        elif each.first_beyond is None:
            sentences.append(f"The mean {METRICS[each.metric]} stayed within {limit} for all {each.most_tried} users.")
        else:
            users = "1 user" if each.users == 1 else f"{each.users} users"
            sentences.append(f"The mean {METRICS[each.metric]} stayed within {limit} for up to {users}.")
    return sentences


def _answered(stages: Sequence[StageSummary]) -> str:
    total = sum(stage.requests for stage in stages)
    answered = sum(stage.ends.get("answered", 0) for stage in stages)
    if total == answered:
        return f"All {total:,} requests were answered." if total else "No request was measured."
    return f"{total - answered:,} of {total:,} requests were not answered."

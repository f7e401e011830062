"""What the overload benchmark makes of its runs: figures of one run, and a table of all.

Owns the definitions. *Goodput* counts good answers that ended in the measured window, after a warm-up and before the
last arrival. An attempt is *accepted* unless it was refused (429, 503 or 529). The *wait* of an accepted attempt is the
time to its first text, or to the whole answer where that is read whole; one that never got there waited for ever.
*Lost* requests are those that the server accepted but, by its own accounts, never ended, and those whose answer broke
off at the client.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from overload_clients import Load, Seen

REFUSALS = (429, 503, 529)


def figures(
    load: Load,
    seen: Sequence[Seen],
    memory: Sequence[tuple[float, int]],
    cpu: Mapping[str, float],
    counted: Mapping[str, float],
) -> dict[str, Any]:
    """One run in figures. Times in seconds, memory in bytes, processor time in cores unless it says seconds."""
    warm_up = min(20.0, load.seconds / 3)
    window = load.seconds - warm_up
    inside = [each for each in seen if warm_up < each.ended <= load.seconds]
    good = [each for each in inside if each.is_good]
    attempts = [attempt for each in seen for attempt in each.attempts]
    refused = [attempt for attempt in attempts if attempt.status in REFUSALS]
    waits = waits_of(seen)
    lag = [each.began - each.due for each in seen]
    row: dict[str, Any] = {"rate": round(load.rate, 3), "seconds": load.seconds, "requests": len(seen)}
    row["goodput"] = round(len(good) / window, 3)
    row["good_tokens_per_second"] = round(sum(each.tokens for each in good) / window, 1)
    row["completed_per_second"] = round(sum(each.outcome == "complete" for each in inside) / window, 3)
    row["completed"] = sum(each.outcome == "complete" for each in seen)
    row["good_long_share"] = round(sum(each.is_long for each in good) / max(1, len(good)), 2)
    row["outcomes"] = dict(Counter(each.outcome for each in seen))
    row |= {"attempts": len(attempts), "refused": len(refused)}
    row["refused_after"] = _percentiles([attempt.answered - attempt.sent for attempt in refused])
    row["wait"] = _percentiles([wait for wait, _ in waits])
    row["wait_of_patience"] = _percentiles([wait / patience for wait, patience in waits])
    row["too_late"] = sum(wait > patience for wait, patience in waits)
    row["accepted"] = len(waits)
    row["tickets"] = tickets(seen)
    row["lag"] = _percentiles(lag)
    row["cut"] = row["outcomes"].get("cut", 0)
    row["accounts"] = dict(counted)
    if counted:
        row["unaccounted"] = counted["accepted"] - counted["finished"] - counted["aborted"] - counted["failed"]
    row["cpu"] = {name: round(value, 3) for name, value in cpu.items()}
    row["memory"] = [(round(at, 1), size) for at, size in memory]
    return row


def waits_of(seen: Sequence[Seen]) -> list[tuple[float, float]]:
    """Of each accepted attempt, how long it waited, and the patience; without those that the benchmark's end cut."""
    found = []
    for each in seen:
        for attempt in each.attempts:
            is_last = attempt is each.attempts[-1]
            if attempt.status in REFUSALS or (is_last and each.outcome == "left"):
                continue
            wait = each.waited if is_last and each.outcome == "complete" else None
            found.append((inf if wait is None else wait, each.patience))
    return found


def tickets(seen: Sequence[Seen]) -> dict[str, int]:
    """How many refusals named a time to come back, how many clients then came, and how many of these were accepted."""
    counts = {"refusals": 0, "with_a_time": 0, "came_back": 0, "were_accepted": 0, "told_to_give_up": 0}
    for each in seen:
        for number, attempt in enumerate(each.attempts):
            if attempt.status not in REFUSALS:
                continue
            counts["refusals"] += 1
            counts["told_to_give_up"] += attempt.should_retry == "false"
            if attempt.retry_after is None:
                continue
            counts["with_a_time"] += 1
            following = each.attempts[number + 1 : number + 2]
            in_time = [next_ for next_ in following if next_.sent >= attempt.answered + 0.9 * attempt.retry_after]
            counts["came_back"] += len(in_time)
            counts["were_accepted"] += sum(next_.status not in REFUSALS for next_ in in_time)
    return counts


def refusal_seconds(row: Mapping[str, Any], best: Mapping[str, Any]) -> float | None:
    """Processor time of the front for one refusal: what it used beyond what the same answers cost without overload."""
    if row["refused"] < 50 or not best["completed"]:
        return None
    answers = row["completed"] * best["cpu"]["front_seconds"] / best["completed"]
    return max(0.0, float(row["cpu"]["front_seconds"] - answers)) / float(row["refused"])


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of all runs."""
    titles = [
        "server",
        "clients",
        "load",
        "offered/s",
        "goodput/s",
        "of the best",
        "tokens/s",
        "refused",
        "a refusal takes",
    ]
    titles += [
        "processor time of a refusal",
        "wait P50",
        "P95",
        "P95 / patience",
        "too late",
        "lost",
        "came back / accepted",
    ]
    titles += ["memory, MiB", "front, clients, others: cores", "client's lag P95"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    best = {row["server"]: row for row in rows if row["clients"] == "best"}
    lines += [f"| {' | '.join(_cells(row, best[row['server']]))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    cost, cpu, came = refusal_seconds(row, best), row["cpu"], row["tickets"]
    names = ("best", "no overload") if row["clients"] == "best" else (row["clients"], f"{row['factor']:g}×")
    lost = row["cut"] + row.get("unaccounted", 0)
    return [
        row["server"],
        *names,
        f"{row['rate']:.1f}",
        f"{row['goodput']:.2f}",
        f"{row['goodput'] / best['goodput']:.0%}" if best["goodput"] else "",
        f"{row['good_tokens_per_second']:.0f}",
        f"{row['refused']:,} of {row['attempts']:,}",
        _seconds(row["refused_after"]["p95"]),
        "" if cost is None else f"{cost * 1e3:.1f} ms",
        _seconds(row["wait"]["p50"]),
        _seconds(row["wait"]["p95"]),
        _share(row["wait_of_patience"]["p95"]),
        f"{row['too_late']} of {row['accepted']}",
        f"{lost:.0f}",
        f"{came['came_back']} / {came['were_accepted']}",
        memory_course(row["memory"]),
        f"{cpu['front']:.2f}, {cpu['clients']:.2f}, {cpu['others']:.2f}",
        _seconds(row["lag"]["p95"]),
    ]


def memory_course(memory: Sequence[Sequence[float]]) -> str:
    """The median of the first third and of the last, and the most."""
    sizes = [size / 2**20 for _, size in memory]
    third = max(1, len(sizes) // 3)
    if not sizes:
        return ""
    return f"{statistics.median(sizes[:third]):.0f} → {statistics.median(sizes[-third:]):.0f}, at most {max(sizes):.0f}"


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else None


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """The median and the 95th percentile; None where there are no values, or where it is for ever."""
    found = {f"p{share}": percentile(values, share / 100) for share in (50, 95)}
    return {name: None if value is None or value == inf else round(value, 4) for name, value in found.items()}


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.0f} ms"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"

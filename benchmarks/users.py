#!/usr/bin/env python3
"""How long people wait for short answers when so many of them ask at once.

    python benchmarks/users.py --server 'antiphon=antiphon serve demo --port {port}' [--json OUT]

Closed loop: each user sends a short chat, reads the whole stream, and sends the next one, `--rounds` times. Every
prompt is new, and every answer has exactly `--answer` tokens. *First token* is the time from sending to the first text,
*answer* to the last byte; percentiles are over all requests of a row. A request that takes longer than `--timeout`
seconds is a time-out, and the client leaves. Several servers take turns for each number of users, while the others are
stopped. *Others* is how many cores anyone but the server and the client took meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients import ask
from record import record, shown
from servers import Server, busy_seconds

TOPICS = ("a river", "an old clock", "winter", "the moon", "a small shop", "a long journey", "honey", "a lighthouse")


@dataclass
class Seen:
    """What all users of one row saw, in seconds."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # answered, time-out, status 503 …
    degraded: int = 0  # answers whose limits the server lowered


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else None


async def user(port: int, number: int, arguments: argparse.Namespace, seen: Seen) -> None:
    """One person, who asks one question after another."""
    for _ in range(arguments.rounds):
        nonce = random.randrange(1 << 30)  # noqa: S311  # so that no prompt is in a cache
        content = f"{nonce:x}: tell me something about {TOPICS[number % len(TOPICS)]}."
        body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": arguments.answer}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, "temperature": 0}
        try:
            async with asyncio.timeout(arguments.timeout):
                reply = await ask(port, "/v1/chat/completions", body)
        except TimeoutError:
            seen.ends["time-out"] += 1
            continue
        if reply.status != 200 or not reply.is_done or reply.first_text is None:
            seen.ends[f"status {reply.status}" if reply.status != 200 else "broken"] += 1
            await asyncio.sleep(1)  # of patience before the next question
            continue
        usage = next(event["usage"] for event in reply.events() if event.get("usage"))
        seen.degraded += "degraded" in reply.body.decode()
        assert usage["completion_tokens"] == arguments.answer or seen.degraded, f"asked for {arguments.answer}: {usage}"
        seen.ends["answered"] += 1
        seen.tokens += usage["completion_tokens"]
        seen.first.append(reply.first_text - reply.sent)
        seen.whole.append(reply.ended - reply.sent)


async def all_users(port: int, num_users: int, arguments: argparse.Namespace) -> Seen:
    seen = Seen()
    await asyncio.gather(*(user(port, number, arguments, seen) for number in range(num_users)))
    return seen


def measure(server: Server, num_users: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    server.go_on()
    machine, own, client = busy_seconds(), sum(server.cpu_seconds().values()), time.process_time()
    began = time.monotonic()
    seen = asyncio.run(all_users(server.port, num_users, arguments))
    wall = time.monotonic() - began
    client = time.process_time() - client
    own = sum(server.cpu_seconds().values()) - own
    others = max(0.0, busy_seconds() - machine - own - client) / wall
    server.pause()
    row: dict[str, Any] = {"server": server.name, "users": num_users, "requests": sum(seen.ends.values())}
    for name, values in (("first_token", seen.first), ("answer", seen.whole)):
        row |= {f"{name}_p{share}": _rounded(percentile(values, share / 100)) for share in (50, 95)}
    row |= {"time_outs": seen.ends["time-out"], "ends": dict(seen.ends), "degraded": seen.degraded}
    row |= {"tokens_per_second": round(seen.tokens / wall, 1), "client": client / wall, "others": others}
    print(row, file=sys.stderr)
    return row


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table."""
    titles = ["users", "server", "first token P50", "P95", "answer P50", "P95", "time-outs", "refused or broken"]
    lines = [f"| {' | '.join([*titles, 'tokens/s', 'others'])} |", "|---" * (len(titles) + 2) + "|"]
    for row in rows:
        names = ("first_token_p50", "first_token_p95", "answer_p50", "answer_p95")
        times = ["" if row[name] is None else f"{row[name]:.2f} s" for name in names]
        failed = row["requests"] - row["time_outs"] - row["ends"].get("answered", 0)
        cells = [str(row["users"]), row["server"], *times, str(row["time_outs"]), str(failed)]
        lines.append(f"| {' | '.join(cells)} | {row['tokens_per_second']:.0f} | {row['others']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--server", action="append", required=True, metavar="NAME=COMMAND", help="with {port} in it; may set variables"
    )
    parser.add_argument("--users", default="1,3,5,8,12,20", help="users at once, one row each")
    parser.add_argument("--rounds", type=int, default=5, help="questions of each user in a row")
    parser.add_argument("--answer", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that a user waits for a whole answer")
    parser.add_argument("--logs", type=Path, default=Path("."), help="folder for the servers' output")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    arguments = parser.parse_args()
    servers = [Server(*text.split("=", 1)) for text in arguments.server]
    try:
        for server in servers:
            server.start(arguments.logs)
            server.pause()
        rows = [measure(server, int(number), arguments) for number in arguments.users.split(",") for server in servers]
    finally:
        for server in servers:
            server.stop()
    print(markdown(rows), file=sys.stderr)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows))
    about = {each.name: shown(each.command.split()) for each in servers}
    record(
        "users",
        {"servers": about, "answer": arguments.answer, "rounds": arguments.rounds, "rows": rows},
        arguments.json,
    )


if __name__ == "__main__":
    main()

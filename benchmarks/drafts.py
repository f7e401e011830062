#!/usr/bin/env python3
"""Measures how much drafts speed up decoding for one user: each prompt goes to two servers, once each.

    python benchmarks/drafts.py \\
      --server 'drafts=antiphon serve demo --port {port} --speculation auto' \\
      --server 'plain=antiphon serve demo --port {port} --speculation off' --json OUT

The prompts come from draft_prompts.py. Each one is sent only once, because a server that remembers its answers would be
faster the second time. The servers alternate in going first (A B, B A). While one server answers, the other process is
stopped. Before the first prompt of each kind, both servers answer a prose prompt, which is not counted. `--first` skips
prompts, so that several short runs can measure different ones; `--merge` puts their results together.

*decode* is the rate from the first token to the last. *whole* includes the time to the first token. Both divide all
tokens by all seconds. A ratio is the first server's rate divided by the second's. Its interval is the middle 95 % of
the ratios of 2,000 samples of the prompts, drawn with replacement (Efron, "Bootstrap Methods: Another Look at the
Jackknife", 1979).

Answers that repeat the same words until they reach their limit are left out: drafts speed those up most, and nobody
wants them. Antiphon's answers must be the same with and without drafts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from draft_prompts import KINDS, chosen
from record import record, shown
from servers import Server, busy_seconds

from antiphon.bench.client import ask

SAMPLES = 2000
_LOOP = 60  # an answer repeats itself if its last so many characters ...
_LOOPS = 4  # ... occur in it so many times
_OK = 200


@dataclass
class Answer:
    """The times (in seconds), the number of tokens and the text of one answer."""

    first: float  # from the request to the first token
    decode: float  # from there to the last
    tokens: int
    text: str
    drafted: int = 0  # as the server reports it
    accepted: int = 0

    @property
    def is_loop(self) -> bool:
        """Whether it ends by repeating the same words."""
        end = self.text[-_LOOP:]
        return len(end) == _LOOP and self.text.count(end) >= _LOOPS


@dataclass
class Pair:
    """Both servers' answers to a prompt."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        return all(answer.tokens > 1 and not answer.is_loop for answer in self.answers)

    @property
    def is_equal(self) -> bool:
        """Whether both texts are the same."""
        return len({answer.text for answer in self.answers}) == 1


async def answer_of(server: Server, body: dict[str, Any]) -> Answer:
    """One streamed answer."""
    wanted = {**body, "model": server.model, "temperature": 0, "stream": True}
    wanted["stream_options"] = {"include_usage": True}
    reply = await ask(f"http://127.0.0.1:{server.port}", "/v1/chat/completions", wanted)
    if reply.status != _OK or reply.first_text is None:
        raise RuntimeError(f"{server.name}: status {reply.status}: {reply.body.decode(errors='replace')[-1000:]}")
    events = list(reply.events())
    usage = next(event["usage"] for event in events if event.get("usage"))
    timings: dict[str, int] = next((event["timings"] for event in reversed(events) if event.get("timings")), {})
    deltas = (choice["delta"] for event in events for choice in event["choices"])
    return Answer(
        first=reply.first_text - reply.sent,
        decode=reply.ended - reply.first_text,
        tokens=usage["completion_tokens"],
        text="".join(delta.get("content") or "" for delta in deltas),
        drafted=timings.get("draft_n", 0),
        accepted=timings.get("draft_n_accepted", 0),
    )


def asked(server: Server, body: dict[str, Any]) -> Answer:
    """One answer. The other server is stopped meanwhile."""
    server.go_on()
    try:
        return asyncio.run(answer_of(server, body))
    finally:
        server.pause()


def measure(servers: list[Server], kind: str, first: int, count: int) -> list[Pair]:
    """Send `count` prompts of a kind, from the one numbered `first`, to each server once."""
    warm_up = {**chosen("prose", len(KINDS))[KINDS.index(kind)], "max_tokens": 32}
    for server in servers:
        asked(server, warm_up)
    pairs = []
    for number, body in enumerate(chosen(kind, len(KINDS) + first + count)[len(KINDS) + first :]):
        answers = {server.name: asked(server, body) for server in (servers if number % 2 else reversed(servers))}
        pairs.append(Pair([answers[server.name] for server in servers]))
        seen = ", ".join(f"{a.tokens / (a.first + a.decode):.0f}" for a in pairs[-1].answers)
        print(f"{kind} {number}: {seen} tokens/s{'' if pairs[-1].counts else ', left out'}", file=sys.stderr)
    return pairs


def decode_rate(pairs: list[Pair], side: int) -> float:
    """Tokens per second after the first token."""
    answers = [pair.answers[side] for pair in pairs]
    return sum(answer.tokens - 1 for answer in answers) / sum(answer.decode for answer in answers)


def whole_rate(pairs: list[Pair], side: int) -> float:
    """Tokens per second, counted from the request."""
    answers = [pair.answers[side] for pair in pairs]
    return sum(answer.tokens for answer in answers) / sum(answer.first + answer.decode for answer in answers)


def ratio(rate: Callable[[list[Pair], int], float], pairs: list[Pair]) -> tuple[float, float, float]:
    """The first server's rate divided by the second's, and the ends of its interval."""
    draw = random.Random(0)  # noqa: S311  # a fixed sample
    ratios = sorted(
        rate(some, 0) / rate(some, 1) for some in (draw.choices(pairs, k=len(pairs)) for _ in range(SAMPLES))
    )
    return rate(pairs, 0) / rate(pairs, 1), ratios[SAMPLES // 40], ratios[-SAMPLES // 40]


def figures(kind: str, pairs: list[Pair], counts: list[bool], equal_texts: int) -> dict[str, Any]:
    """The results for one kind of prompt. `counts`: of each pair, whether it is counted."""
    counted = [pair for pair, flag in zip(pairs, counts, strict=True) if flag]
    return {
        "kind": kind,
        "prompts": len(pairs),
        "counted": len(counted),
        "equal_texts": equal_texts,
        "tokens": [sum(pair.answers[side].tokens for pair in counted) for side in (0, 1)],
        "drafted": [sum(pair.answers[side].drafted for pair in counted) for side in (0, 1)],
        "accepted": [sum(pair.answers[side].accepted for pair in counted) for side in (0, 1)],
        "decode": [decode_rate(counted, side) for side in (0, 1)],
        "decode_ratio": ratio(decode_rate, counted),
        "whole": [whole_rate(counted, side) for side in (0, 1)],
        "whole_ratio": ratio(whole_rate, counted),
        "answers": [[{**asdict(answer), "text": ""} for answer in pair.answers] for pair in pairs],
        "counts": counts,
    }


def measured(kind: str, pairs: list[Pair]) -> dict[str, Any]:
    """The results of one run."""
    return figures(kind, pairs, [pair.counts for pair in pairs], sum(pair.is_equal for pair in pairs))


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of several runs of one kind, which have different prompts."""
    pairs = [Pair([Answer(**answer) for answer in each]) for run in runs for each in run["answers"]]
    counts = [flag for run in runs for flag in run["counts"]]
    return figures(runs[0]["kind"], pairs, counts, sum(run["equal_texts"] for run in runs))


def merge(paths: list[Path], out: Path | None) -> None:
    """Put the results of several runs with the same servers together, print them and record them."""
    runs = [json.loads(path.read_text()) for path in paths]
    if any(run["servers"] != runs[0]["servers"] for run in runs):
        raise SystemExit("The results are of different servers.")
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in (row for run in runs for row in run["kinds"]):
        by_kind.setdefault(row["kind"], []).append(row)
    rows = [merged(rows) for rows in by_kind.values()]
    print(table(rows, [*runs[0]["servers"]]))
    commands = list(dict.fromkeys(run["command"] for run in runs))
    record("drafts", {"servers": runs[0]["servers"], "runs": commands, "kinds": rows}, out)


def table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """The ratios as Markdown."""
    first, second = names
    lines = [
        f"| | prompts counted | decode, tokens/s: {first} | {second} | ratio (95 %) | whole | ratio (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        (decode, low, high), (whole, least, most) = row["decode_ratio"], row["whole_ratio"]
        lines.append(
            f"| {row['kind']} | {row['counted']} of {row['prompts']} | {row['decode'][0]:.0f} | {row['decode'][1]:.0f} "
            f"| **{decode:.2f}** ({low:.2f}–{high:.2f}) | {row['whole'][0]:.0f} : {row['whole'][1]:.0f} "
            f"| {whole:.2f} ({least:.2f}–{most:.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", default=[], help="NAME=COMMAND with {port}; give it twice")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--first", type=int, default=0, help="number of the first prompt of each kind")
    parser.add_argument("--count", type=int, default=16, help="prompts of each kind")
    parser.add_argument("--merge", type=Path, nargs="+", help="results of runs with different prompts")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.merge:
        merge(arguments.merge, arguments.json)
        return
    servers = [Server(*each.split("=", 1)) for each in arguments.server]
    if len(servers) != 2:
        parser.error("give --server twice")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for server in servers:
                server.start(Path(folder))
                server.pause()
            busy = busy_seconds()
            kinds, first, count = arguments.kinds.split(","), arguments.first, arguments.count
            rows = [measured(kind, measure(servers, kind, first, count)) for kind in kinds]
            busy = busy_seconds() - busy
    finally:
        for server in servers:
            server.stop()
    print(table(rows, [server.name for server in servers]))
    commands = {server.name: shown([server.command]).strip("'") for server in servers}
    record("drafts", {"servers": commands, "kinds": rows, "busy_seconds": busy}, arguments.json)


if __name__ == "__main__":
    main()

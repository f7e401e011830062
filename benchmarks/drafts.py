#!/usr/bin/env python3
"""What drafts are worth to one user: two servers get each prompt once, in turn, and their rates are compared.

    python benchmarks/drafts.py \\
      --server 'drafts=antiphon serve demo --port {port} --speculation auto' \\
      --server 'plain=antiphon serve demo --port {port} --speculation off' --json OUT

The prompts are those of draft_prompts.py. Each is sent once to each server: were it sent again, a server that
remembers answers would have it ready. The first server is asked first for every other prompt (A B, B A). The server
that is not asked is stopped. Before a kind's first counted prompt each server gets one of prose, which is not counted.

*decode* is the rate from the first token to the last; *whole* also counts the time to the first one. Both are all
tokens by all seconds. A ratio is the first server's rate by the second's. Its interval holds the middle 95 % of the
ratios of 2,000 samples of the prompts, drawn with replacement (Efron, "Bootstrap Methods: Another Look at the
Jackknife", 1979).
An answer in which the model said the same again and again until its limit (engine/worker/repetition.py) is left out:
drafts make those fastest of all, and nobody wants them. The texts of Antiphon's own servers must be equal.
"""

from __future__ import annotations

import argparse
import asyncio
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
_LOOP = 60  # characters at the end of an answer that occur in it, close together, ...
_LOOPS = 4  # ... so often
_OK = 200


@dataclass
class Answer:
    """One answer's times in seconds, its tokens and its text."""

    first: float  # from the request to the first token
    decode: float  # from there to the last
    tokens: int
    text: str
    drafted: int = 0  # as the server says
    accepted: int = 0

    @property
    def is_loop(self) -> bool:
        """Whether it ends in the same words again and again."""
        end = self.text[-_LOOP:]
        return len(end) == _LOOP and self.text.count(end) >= _LOOPS


@dataclass
class Pair:
    """Both servers' answers to a prompt."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        return all(answer.tokens > 1 and not answer.is_loop for answer in self.answers)


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
    """One answer, while the other server is stopped."""
    server.go_on()
    try:
        return asyncio.run(answer_of(server, body))
    finally:
        server.pause()


def measure(servers: list[Server], kind: str, count: int) -> list[Pair]:
    """Every prompt of a kind to each server once."""
    warm_up = {**chosen("prose", len(KINDS))[KINDS.index(kind)], "max_tokens": 32}
    for server in servers:
        asked(server, warm_up)
    pairs = []
    for number, body in enumerate(chosen(kind, count + len(KINDS))[len(KINDS) :]):
        answers = {server.name: asked(server, body) for server in (servers if number % 2 else reversed(servers))}
        pairs.append(Pair([answers[server.name] for server in servers]))
        seen = ", ".join(f"{a.tokens / (a.first + a.decode):.0f}" for a in pairs[-1].answers)
        print(f"{kind} {number}: {seen} tokens/s{'' if pairs[-1].counts else ', left out'}", file=sys.stderr)
    return pairs


def decode_rate(pairs: list[Pair], side: int) -> float:
    """Tokens a second after the first one."""
    answers = [pair.answers[side] for pair in pairs]
    return sum(answer.tokens - 1 for answer in answers) / sum(answer.decode for answer in answers)


def whole_rate(pairs: list[Pair], side: int) -> float:
    """Tokens a second from the request on."""
    answers = [pair.answers[side] for pair in pairs]
    return sum(answer.tokens for answer in answers) / sum(answer.first + answer.decode for answer in answers)


def ratio(rate: Callable[[list[Pair], int], float], pairs: list[Pair]) -> tuple[float, float, float]:
    """The first server's rate by the second's, and the ends of its interval."""
    draw = random.Random(0)  # noqa: S311  # a fixed sample
    ratios = sorted(
        rate(some, 0) / rate(some, 1) for some in (draw.choices(pairs, k=len(pairs)) for _ in range(SAMPLES))
    )
    return rate(pairs, 0) / rate(pairs, 1), ratios[SAMPLES // 40], ratios[-SAMPLES // 40]


def figures(kind: str, pairs: list[Pair]) -> dict[str, Any]:
    """What is told about a kind."""
    counted = [pair for pair in pairs if pair.counts]
    return {
        "kind": kind,
        "prompts": len(pairs),
        "counted": len(counted),
        "equal_texts": sum(len({answer.text for answer in pair.answers}) == 1 for pair in pairs),
        "tokens": [sum(pair.answers[side].tokens for pair in counted) for side in (0, 1)],
        "drafted": [sum(pair.answers[side].drafted for pair in counted) for side in (0, 1)],
        "accepted": [sum(pair.answers[side].accepted for pair in counted) for side in (0, 1)],
        "decode": [decode_rate(counted, side) for side in (0, 1)],
        "decode_ratio": ratio(decode_rate, counted),
        "whole": [whole_rate(counted, side) for side in (0, 1)],
        "whole_ratio": ratio(whole_rate, counted),
        "answers": [[{**asdict(answer), "text": ""} for answer in pair.answers] for pair in pairs],
    }


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
    parser.add_argument("--server", action="append", required=True, help="NAME=COMMAND with {port}; twice")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--count", type=int, default=16, help="prompts of each kind")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    servers = [Server(*each.split("=", 1)) for each in arguments.server]
    if len(servers) != 2:
        parser.error("two servers are compared")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for server in servers:
                server.start(Path(folder))
                server.pause()
            busy = busy_seconds()
            rows = [figures(kind, measure(servers, kind, arguments.count)) for kind in arguments.kinds.split(",")]
            busy = busy_seconds() - busy
    finally:
        for server in servers:
            server.stop()
    print(table(rows, [server.name for server in servers]))
    commands = {server.name: shown([server.command]).strip("'") for server in servers}
    record("drafts", {"servers": commands, "kinds": rows, "busy_seconds": busy}, arguments.json)


if __name__ == "__main__":
    main()

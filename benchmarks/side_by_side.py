#!/usr/bin/env python3
"""Several servers, one client, in turn: tokens a second, waiting times and memory of each, and the ratios between them.

    python benchmarks/side_by_side.py \\
      --server 'antiphon=antiphon serve MODEL.gguf --port {port} --speculation off' \\
      --server 'llama.cpp=llama-server -m MODEL.gguf --port {port} -np 32 --no-kv-unified -c 40960 -fa on -cram 0'

All servers stay up, but are stopped while another one is asked: some are not idle when nobody asks. In a case each is
asked in turn, A B A B, round after round. Random weights repeat themselves, and drafts would make them fast: they are
off (drafts.py measures them with real text). Figures are medians over the rounds, ratios are to the last server named,
taken round by round. A case is USERSxPROMPT+ANSWER, and *ROUNDS where these are not three. Each server is warmed up
once, by a small case. Prompts are random token ids, new in every round, so that no prefix cache helps. But in a case
that ends in k (32x1000+64k) they stay the same and are computed before the first round, which gives the rate of
prefill under load; then rounds are short, though contexts are long. Every server is held to the numbers of tokens
that were asked for (servers.py), and in a k case to knowing the prompts.

*tokens/s* is the whole path: all tokens of all users by the time from the first request sent to the last byte read;
of a case with answers of one token, prompt tokens. *decode* is what is produced while every user is being answered:
from the last first token to the first last one. Memory is the most that a server's processes held right after a
round, shared pages counted once among them (PSS). *others* is how many cores anyone else took meanwhile; on a machine
with other work the figures say little, for servers whose threads wait for each other least of all.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from record import record, shown
from servers import Case, Server, Stream, busy_seconds

CASES = "1x64+64*5,8x64+64,16x64+64,32x64+64,1x512+1,32x1000+48k*2"


@dataclass
class Figures:
    """One case against one server, once."""

    throughput: float  # tokens/s of the whole path; of prefill, prompt tokens/s
    decode: float | None  # tokens/s while all are answered; none where no such time was
    first_token: float  # seconds, median over users
    last_first_token: float  # seconds until every user had one
    cached: float  # tokens of a prompt, mean over users
    client: float  # cores that the client took
    others: float  # cores that anyone but server and client took: a figure is good where nobody did
    seconds: float

    @classmethod
    def of(cls, case: Case, streams: list[Stream], client: float, others: float) -> Figures:
        """`client`, `others`: seconds of processor time."""
        wall = max(stream.last for stream in streams) - min(stream.sent for stream in streams)
        tokens = case.users * (case.prompt if case.is_prefill else case.answer)
        return cls(
            throughput=tokens / wall,
            decode=None if case.is_prefill else decode_rate(streams),
            first_token=statistics.median(stream.first - stream.sent for stream in streams),
            last_first_token=max(stream.first for stream in streams) - min(stream.sent for stream in streams),
            cached=statistics.mean(stream.cached for stream in streams),
            client=client / wall,
            others=others / wall,
            seconds=wall,
        )


def decode_rate(streams: list[Stream]) -> float | None:
    start, end = max(stream.first for stream in streams), min(stream.last for stream in streams)
    if end <= start:
        return None
    return sum(stream.tokens_between(start, end) for stream in streams) / (end - start)


@dataclass
class Rounds:
    """All rounds of one case against one server."""

    runs: list[Figures] = field(default_factory=list)
    memory_bytes: int = 0
    first_prefill: float | None = None  # prompt tokens/s when prompts that are known later were computed, all at once


Results = dict[tuple[Case, str], Rounds]


def measure(servers: list[Server], cases: list[Case]) -> Results:
    """Every case against every server in turn."""
    results: Results = {}
    for case in cases:
        results |= {(case, server.name): Rounds() for server in servers}
        for server in servers if case.known else ():
            results[case, server.name].first_prefill = run(server, replace(case, answer=1), case.prompts()).throughput
        for _ in range(case.rounds):
            for server in servers:
                rounds = results[case, server.name]
                rounds.runs.append(run(server, case, case.prompts()))
                rounds.memory_bytes = max(rounds.memory_bytes, server.memory_bytes())
                check_known(case, server, rounds)
    return results


def run(server: Server, case: Case, prompts: list[list[int]]) -> Figures:
    server.go_on()
    machine, asked, client = busy_seconds(), sum(server.cpu_seconds().values()), time.process_time()
    streams = asyncio.run(server.run(case, prompts))
    client = time.process_time() - client
    asked = sum(server.cpu_seconds().values()) - asked
    server.pause()
    figures = Figures.of(case, streams, client, max(0.0, busy_seconds() - machine - asked - client))
    seen = f"{figures.throughput:.1f} tokens/s, {figures.seconds:.1f} s, {figures.others:.2f} cores taken by others"
    print(f"{case} {server.name}: {seen}", file=sys.stderr)
    return figures


def check_known(case: Case, server: Server, rounds: Rounds) -> None:
    """Prompts that are known are not computed again: the first token comes in a fraction of the time."""
    if rounds.first_prefill is not None:
        computing = case.users * case.prompt / rounds.first_prefill
        waited = rounds.runs[-1].last_first_token
        assert waited < computing / 2, f"{server.name} computed known prompts again: {waited:.1f} s of {computing:.1f}"


def median(runs: list[Figures], name: str) -> float | None:
    values = [value for run in runs if (value := getattr(run, name)) is not None]
    return statistics.median(values) if values else None


def ratio(ours: list[Figures], theirs: list[Figures], name: str) -> float | None:
    """The median of the rounds' ratios."""
    pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(ours, theirs, strict=True)]
    ratios = [a / b for a, b in pairs if a is not None and b is not None]
    return statistics.median(ratios) if ratios else None


def rows(servers: list[Server], cases: list[Case], results: Results) -> list[dict[str, Any]]:
    found = []
    for case in cases:
        for server in servers:
            rounds, last = results[case, server.name], results[case, servers[-1].name]
            row = {"server": server.name, **asdict(case), "memory_bytes": rounds.memory_bytes}
            row |= {name: median(rounds.runs, name) for name in ("throughput", "decode", "first_token", "others")}
            row |= {f"{name}_ratio": ratio(rounds.runs, last.runs, name) for name in ("throughput", "decode")}
            row |= {"first_prefill": rounds.first_prefill, "runs": [asdict(run) for run in rounds.runs]}
            found.append(row)
    return found


def report(found: list[dict[str, Any]]) -> None:
    """A table in Markdown."""
    sizes, rates = "users | prompt | answer | server", "tokens/s | decode | first token, ms | ratio | decode's"
    print(f"| {sizes} | {rates} | GiB | prefill | others |\n|{'---|' * 12}")
    for row in found:
        size = f"{row['users']} | {row['prompt']:,}{', known' * row['known']} | {row['answer']}"
        ratios = f"{_shown(row['throughput_ratio'], 2)} | {_shown(row['decode_ratio'], 2)}"
        print(
            f"| {size} | {row['server']} | {row['throughput']:.1f} | {_shown(row['decode'], 1)} | "
            f"{row['first_token'] * 1e3:.0f} | {ratios} | {row['memory_bytes'] / 2**30:.2f} | "
            f"{_shown(row['first_prefill'], 0)} | {row['others']:.2f} |"
        )


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--server", action="append", required=True, metavar="NAME=COMMAND", help="with {port} in it; may set variables"
    )
    parser.add_argument("--cases", default=CASES, help=f"USERSxPROMPT+ANSWER[k][*ROUNDS],…  [{CASES}]")
    parser.add_argument("--logs", type=Path, default=Path("."), help="folder for the servers' output")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    servers = [Server(*text.split("=", 1)) for text in arguments.server]
    cases = [Case.parse(text) for text in arguments.cases.split(",")]
    try:
        for server in servers:
            server.start(arguments.logs)
            server.pause()
        found = rows(servers, cases, measure(servers, cases))
    finally:
        for server in servers:
            server.stop()
    report(found)
    about = {s.name: {"command": shown(s.command.split()), "seconds_to_start": s.seconds_to_start} for s in servers}
    record("side-by-side", {"servers": about, "cases": found}, arguments.json)


if __name__ == "__main__":
    main()

"""Whether answers under load equal the answers that the same requests get alone.

A server that batches requests may give other answers under load than alone, because sums are computed in another order,
or because something is wrong: a cache that mixes up conversations, a state that leaks. So each distinct request that
was answered under load is sent once more when nobody else asks, and thought and answer are compared, character by
character. It needs requests whose answers are determined: greedy, or with a seed.

Answers whose limits the server lowered under load, and said so, are compared with an answer to the request that
asks for these limits.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from antiphon.bench.answers import Answer
from antiphon.bench.records import CheckRecord
from antiphon.bench.requests import Exchange

_SHOWN = 5  # differences in the record
_CONTEXT = 30  # characters shown around the first difference
STAGE = -1  # of the record: the check is about the whole run


class Said(msgspec.Struct, frozen=True):
    """What was answered to a request under load: a line of `answers.jsonl`."""

    body: str
    thought: str
    text: str
    stage: int = 0
    number: int = 0
    degraded: dict[str, Any] | None = None


class AnswerFile:
    """`answers.jsonl`, which keeps what was said under load, for `--check-same`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        self._file = path.open("ab")
        self._file.truncate(content.rfind(b"\n") + 1)

    def keep(self, exchange: Exchange) -> None:
        """Write down an answer."""
        request, answer = exchange.request, exchange.answer
        said = Said(request.body.decode(), answer.thought, answer.text, request.stage, request.number, answer.degraded)
        self._file.write(msgspec.json.encode(said) + b"\n")

    def read(self) -> list[Said]:
        """All that was kept."""
        self._file.flush()
        decoder = msgspec.json.Decoder(Said)
        return [decoder.decode(line) for line in self._path.read_bytes().splitlines() if line]

    def close(self) -> None:
        """Write it out."""
        self._file.close()


async def check_same(
    said: Iterable[Said],
    ask: Callable[[bytes], Awaitable[Exchange]],
    *,
    limit: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> CheckRecord:
    """Ask each distinct request alone, and compare. `limit`: the maximum number of requests; 0: all."""
    by_body: dict[bytes, list[Said]] = {}
    for each in said:
        by_body.setdefault(_effective(each), []).append(each)
    chosen = list(by_body.items())[: limit or None]
    compared = failed = degraded = num_different = 0
    differences: list[str] = []
    for done, (body, answers) in enumerate(chosen):
        progress(done, len(chosen))
        exchange = await ask(body)
        if exchange.record.end != "answered":
            failed += 1
            continue
        for each in answers:
            compared += 1
            degraded += each.degraded is not None
            if different := difference(each, exchange.answer):
                num_different += 1
                differences.append(f"stage {each.stage}, request {each.number}: {different}")
    note = _note(compared, num_different, degraded, failed, len(by_body) - len(chosen))
    return CheckRecord(STAGE, "same", not differences and compared > 0, compared, differences[:_SHOWN], note)


def _effective(said: Said) -> bytes:
    """The request's body with the limits that applied to it."""
    if said.degraded is None:
        return said.body.encode()
    limits = {name: value for name, value in said.degraded.items() if name != "level"}
    return json.dumps({**json.loads(said.body), **limits}).encode()


def difference(under_load: Said, alone: Answer) -> str:
    """Where the two answers differ first, in words; empty if they do not."""
    for name, loaded, quiet in (
        ("thought", under_load.thought, alone.thought),
        ("answer", under_load.text, alone.text),
    ):
        if loaded == quiet:
            continue
        at = next(
            (at for at, (a, b) in enumerate(zip(loaded, quiet, strict=False)) if a != b), min(len(loaded), len(quiet))
        )
        start = max(0, at - _CONTEXT)
        under, single = loaded[start : at + _CONTEXT], quiet[start : at + _CONTEXT]
        return f"the {name} differs from character {at} on: {under!r} under load, {single!r} alone"
    return ""


def _note(compared: int, different: int, degraded: int, failed: int, left_out: int) -> str:
    notes = [f"{different:,} of {compared:,} answers differ"]
    if degraded:
        notes.append(f"{degraded:,} had limits that the server lowered, and were compared with answers within these")
    if failed:
        notes.append(f"{failed:,} requests were not answered alone")
    if left_out:
        notes.append(f"{left_out:,} requests were left out")
    return "; ".join(notes)

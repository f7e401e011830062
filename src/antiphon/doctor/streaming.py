"""Measures whether a stream arrives in pieces, as it is generated, or held back by something on the way.

Owns the judgement, which compares when events arrived with how long the server says that it generated. A server that
does not say so (`timings`, as Antiphon's and llama.cpp's) is judged by the arrival times alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from antiphon.doctor.findings import Finding, ok, warning

MIN_EVENTS = 8  # with text; of fewer nothing can be said
MIN_SECONDS = 0.2  # a shorter answer arrives at once anyway
MAX_SECONDS = 4.0  # no more is read after that
_HELD_BACK = 0.5  # of the time of generation: if the events arrive within less, something has held them back
_WAITED = 0.85  # of the request's time before the first event, where the server does not say how long it generated
_IN_ONE_PIECE = 0.3  # of the events
_PER_BURST = 3  # events that arrive at the same moment, on average, and
_BURST_SECONDS = 0.05  # from one such moment to the next: people see that


@dataclass(slots=True)
class Stream:
    """What arrived, and when. Times are in seconds after the request was sent."""

    arrivals: list[float] = field(default_factory=list)  # of each event with text
    seconds: float = 0.0  # until the end
    generated_seconds: float | None = None  # from the first token to the last, as the server says
    content_encoding: str = ""

    @property
    def span(self) -> float:
        """From the first event to the last."""
        return self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0

    @property
    def num_pieces(self) -> int:
        """At how many moments something arrived."""
        return len(set(self.arrivals))

    @property
    def largest_piece(self) -> int:
        """The most events that arrived at the same moment."""
        return max((self.arrivals.count(moment) for moment in set(self.arrivals)), default=0)

    @property
    def is_conclusive(self) -> bool:
        """Whether there were enough events over enough time."""
        generated = self.seconds if self.generated_seconds is None else self.generated_seconds
        return len(self.arrivals) >= MIN_EVENTS and generated >= MIN_SECONDS


def read_stream(chunks: Iterable[bytes], sent: float) -> Stream:
    """Read server-sent events as they arrive, for MAX_SECONDS at most. `sent`: by `time.perf_counter`.

    Events that arrive in one read have the same time.
    """
    stream, rest = Stream(), b""
    for chunk in chunks:
        now = time.perf_counter() - sent
        *events, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            _note(event, now, stream)
        stream.seconds = now
        if now > MAX_SECONDS:
            break
    return stream


def _note(event: bytes, now: float, stream: Stream) -> None:
    with suppress(ValueError):
        payload = json.loads(event.removeprefix(b"data:"))
        if _has_text(payload):
            stream.arrivals.append(now)
        milliseconds = payload["timings"]["predicted_ms"] if isinstance(payload.get("timings"), dict) else None
        if isinstance(milliseconds, int | float):
            stream.generated_seconds = milliseconds / 1000


def _has_text(payload: Any) -> bool:  # noqa: ANN401  # JSON
    """Whether an event has a part of the answer, in the shapes of chat and of completions."""
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    delta = choices[0].get("delta")
    parts = delta if isinstance(delta, dict) else choices[0]
    return any(parts.get(name) for name in ("content", "reasoning_content", "reasoning", "text"))


def judge(stream: Stream) -> list[Finding]:
    """Whether the stream was held back, or compressed."""
    found = []
    if stream.content_encoding and stream.content_encoding != "identity":
        found.append(
            warning(
                f"the stream is compressed ({stream.content_encoding})",
                why="A compressor waits for more text before it sends any, so words arrive in bursts.",
                fix="gzip_types application/json;  # nginx: without text/event-stream; Apache: no-gzip for streams",
            )
        )
    if not stream.is_conclusive:
        found.append(
            ok(f"{len(stream.arrivals)} events of a stream in {stream.seconds * 1e3:.0f} ms: too fast to tell more")
        )
    elif held := _held_back(stream):
        found.append(
            warning(
                f"a stream does not arrive as it is generated: {held}",
                why="Something on the way buffers it, usually a reverse proxy. People see nothing until the end, and a "
                "client that gives up is noticed late.",
                fix="proxy_buffering off;  # nginx, as antiphon proxy-config writes it",
            )
        )
    else:
        found.append(
            ok(f"a stream arrives in pieces: {len(stream.arrivals)} events over {stream.span * 1e3:.0f} ms, the first "
               f"after {stream.arrivals[0] * 1e3:.0f} ms")
        )  # fmt: skip
    return found


def _held_back(stream: Stream) -> str:
    """What shows that a stream was held back; empty if nothing does."""
    count, largest = len(stream.arrivals), stream.largest_piece
    generated = stream.generated_seconds
    if generated is not None and stream.span < _HELD_BACK * generated:
        return f"{count} events, generated over {generated * 1e3:.0f} ms, arrived within {stream.span * 1e3:.0f} ms"
    if generated is None and largest == count:
        return f"all {count} events arrived at the same moment, {stream.seconds * 1e3:.0f} ms after the request"
    if generated is None and stream.arrivals[0] > _WAITED * stream.seconds and largest > _IN_ONE_PIECE * count:
        return f"nothing arrived for {stream.arrivals[0] * 1e3:.0f} ms, then {largest} of {count} events at once"
    pieces = stream.num_pieces
    if pieces * _PER_BURST <= count and stream.span >= pieces * _BURST_SECONDS:
        return f"{count} events arrived in {pieces} bursts over {stream.span * 1e3:.0f} ms"
    return ""

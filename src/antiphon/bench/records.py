"""What a load test keeps: one record for each request, stage and sample of the server.

These are the lines of the journal (`journal.py`), from which every figure, table and report is computed. A record is
never changed after it is written. Times are in seconds since the start of the run, on the client's monotonic clock.
"""

from __future__ import annotations

from typing import Literal

import msgspec

End = Literal["answered", "refused", "failed", "timeout", "cut", "connection", "invalid", "cancelled"]
"""How a request ended, as its client sees it.

`answered`: the whole answer came. `refused`: 429, 503 or 529. `failed`: any other status of an error, or an error in
the stream. `timeout`: the client's patience ended. `cut`: the connection ended before the answer did. `connection`: no
connection, or it ended before the status. `invalid`: what came is not what the API describes. `cancelled`: the load
test itself stopped it, at the end of a stage.
"""


class RunRecord(msgspec.Struct, frozen=True, tag="run", omit_defaults=True):
    """The first line of a journal: what was asked for, where and when."""

    schema: int
    name: str  # of the server, as it appears in reports
    url: str
    model: str
    command: list[str]
    started_at: float  # seconds since 1970
    version: str  # of Antiphon, the client
    machine: dict[str, str]
    options: dict[str, str]


class StageRecord(msgspec.Struct, frozen=True, tag="stage", omit_defaults=True):
    """A part of the run with one load; written when it is complete, so that a resumed run does not repeat it."""

    stage: int
    label: str  # "8 users", "2.5 requests/s", "1 → 20 users"
    shape: Literal["users", "ramp", "rate"]
    started: float
    ended: float  # when the last answer had ended
    sending_ended: float = 0.0  # when the last request was sent, at most; answers that were under way went on after it
    interrupted: bool = False  # Ctrl-C ended it early; a resumed run repeats it
    users: int | None = None  # the constant number, or the largest of a ramp
    rate: float | None = None  # requests per second, for open loops
    round: int = 0  # of repeated or interleaved stages
    warm_up: float = 0.0  # requests sent before `started` + this are left out of the figures
    ramp: tuple[int, int, float, float] | None = None  # from, to, seconds of ramp, seconds held
    client_cpu_seconds: float = 0.0
    lag_p99: float = 0.0  # how late the client's own event loop was
    lag_max: float = 0.0
    lag_histogram: list[int] = []  # timers that were late by no more than each of `lag.BUCKETS`
    requests: int = 0  # sent, without those tried again
    server_counters: dict[str, float] = {}  # by how much the server's counters grew, by our names of them


class RequestRecord(msgspec.Struct, frozen=True, tag="request", omit_defaults=True):
    """One attempt of one request."""

    stage: int
    number: int  # of the request in its stage; attempts of one request share it
    end: End
    sent: float
    ended: float
    due: float | None = None  # when it was to be sent, for open loops: latencies count from here
    user: int = 0
    users: int = 0  # how many were present when it was sent
    attempt: int = 0  # 0: the first
    status: int | None = None
    code: str = ""  # of the error, or the exception's name
    message: str = ""  # of the error, shortened; comes from the server, so it must be escaped
    first_byte: float | None = None
    first_token: float | None = None  # of thought or answer
    first_answer: float | None = None  # the first text or call after the thought
    last_token: float | None = None
    gaps_ms: list[float] = []  # between the arrivals of parts with text, in milliseconds
    prompt_tokens: int = 0
    cached_tokens: int = 0
    thought_tokens: int = 0
    answer_tokens: int = 0  # without the thought
    tokens_estimated: bool = False  # the server told no usage: parts with text were counted
    split_estimated: bool = False  # it told no count of thought tokens: they are in proportion to the parts with text
    finish_reason: str = ""
    degraded: bool = False  # the server said that it lowered a limit
    retry_after: float | None = None  # seconds, as told with a refusal
    should_retry: bool | None = None  # as the header x-should-retry says
    waited: float | None = None  # seconds since the refusal before, for an attempt after the first
    prompt: str = ""  # digest of the request's body: equal requests have equal digests
    text: str = ""  # digest of thought and answer


class SampleRecord(msgspec.Struct, frozen=True, tag="sample", omit_defaults=True):
    """The server at one moment, from its /metrics or from /proc. What it does not tell is None."""

    at: float
    users: int = 0
    cpu_seconds: float | None = None  # all its processes, since they started
    memory_bytes: float | None = None
    kv_usage: float | None = None  # 0 to 1
    running: float | None = None
    waiting: float | None = None
    degrade_level: float | None = None


class CheckRecord(msgspec.Struct, frozen=True, tag="check", omit_defaults=True):
    """A verdict of the load test on the server: answers under load against answers alone, or accounts."""

    stage: int
    check: Literal["same", "accounts", "lag"]
    passed: bool
    compared: int = 0
    differences: list[str] = []  # in words, the first few
    note: str = ""


Record = RunRecord | StageRecord | RequestRecord | SampleRecord | CheckRecord

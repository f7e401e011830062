"""What the front says of its engines: their states, and a snapshot of each. A leaf.

`EngineView` is what an operator sees of one engine (`EngineClient.engines`). Engine ids are small numbers, counted from
1 and never used again while the server runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class EngineState(StrEnum):
    """The state of an engine, or of all engines together, as the front knows it."""

    LOADING = "loading"  # not ready yet for the first time; while that holds for all engines, requests are refused
    READY = "ready"  # all engines together: at least one is
    RESTARTING = "restarting"  # it died; its requests go to other engines, or wait for the next one
    DRAINING = "draining"  # gets no new requests; running ones continue
    DRAINED = "drained"  # gets no requests and has none, until it is resumed (of one engine only)
    FAILED = "failed"  # given up; `EngineClient.error` says why
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class EngineGpu:
    """The GPU that an engine uses, and its memory in bytes."""

    number: str  # "0", as in cuda:0; for an engine on another machine, after its address: "tcp://10.0.0.5:9000 0"
    uuid: str  # without a prefix; empty: not known
    name: str
    is_here: bool  # in this machine
    generation: int  # of the engine
    planned: int  # that the engine takes; 0: not known
    reserve: int  # that stays free beside it: as planned, or as it was when the engine was ready
    used: int  # by all processes, as the engine saw it in its latest step
    total: int


@dataclass(frozen=True, slots=True)
class EngineView:
    """One engine at one moment."""

    id: int  # never used again
    state: EngineState
    address: str | None  # where it runs, as in `--engines`; None: on this machine, and no device was named
    pid: int | None  # of its process on this machine; None while there is none
    threads: int | None  # that compute; None: not known before it is ready, or the fake runner
    generation: int  # of the model and settings that it serves; grows with each `Operations.replace`
    running: int  # requests being computed
    waiting: int  # requests that it has, and does not compute yet
    tokens_owed: float  # tokens that it still has to compute: of prompts, and expected ones of answers
    kv_cache_usage: float | None  # share of its KV cache in use, 0 to 1; None before it is ready
    restarts: int  # how often its process died and was replaced
    loading_fraction: float | None  # 0 to 1 while it loads
    loading_phase: str | None  # for people: "packing weights"
    breaker: int  # 0: closed, 1: half-open, 2: open, since it keeps failing
    trouble: str | None  # how its last process died; None once the next is ready
    instruction_set: str | None = None  # of its kernels; None before it is ready
    fingerprint: str | None = None  # of its arithmetic; None before it is ready
    model_fingerprint: str | None = None  # of what the model computes; None before it is ready
    versions: Mapping[str, str] = field(default_factory=dict)  # of Antiphon, Python and libraries

"""The server's state for people who use it: what `GET /v1/status` says, and a chat page shows.

Owns the shape. It says how busy the server is, but nothing about who uses it: no prompts, addresses or keys.
"""

from __future__ import annotations

import msgspec

from antiphon import __version__
from antiphon.api.context import Context
from antiphon.engine.client import EngineClient, EngineState, EngineView


class LoadingStatus(msgspec.Struct):
    fraction: float  # 0 to 1
    phase: str  # "packing weights"


class EngineStatus(msgspec.Struct):
    id: int
    state: str  # loading, ready, restarting, draining, drained, failed, stopped
    running: int  # answers being computed
    waiting: int
    kv_cache_usage: float | None  # 0 to 1; null until it is ready


class Status(msgspec.Struct):
    state: str  # loading, ready, restarting, draining, failed, stopped
    loading: LoadingStatus | None  # while an engine loads
    model: str
    thinks: bool  # whether the model writes a thought before its answer
    sampling: dict[str, float | int]  # that the publisher recommends; used by requests that set none
    context_length: int | None  # null until the first engine is ready
    max_num_seqs: int  # answers computed at the same time
    running: int  # answers being computed
    waiting: int  # accepted, but not being computed
    kv_cache_usage: float | None  # 0 to 1
    engines: list[EngineStatus]
    degrade_level: int  # of --degrade, for new requests; 0: none
    tokens_per_second: float | None  # of all answers, now; 0 if there are none; null before the first answer
    tokens_per_second_per_answer: float | None  # that one more answer would get; null if that is not known
    requires_key: bool
    version: str


def status_of(context: Context) -> Status:
    """The state now; computed from figures that are there already."""
    engine, model = context.engine, context.model
    running = min(engine.stats.running, engine.counters.running)
    waiting = engine.counters.running - running
    most = engine.max_num_sequences
    return Status(
        state=engine.state.value,
        loading=_loading(engine),
        model=model.name,
        thinks=model.text.thinks,
        sampling=dict(model.generation_defaults),
        context_length=engine.info.context_length if engine.info else None,
        max_num_seqs=most,
        running=running,
        waiting=waiting,
        kv_cache_usage=_kv_cache_usage(engine),
        engines=[_engine(each) for each in engine.engines()],
        degrade_level=context.degrading.level,
        tokens_per_second=_rounded(engine.speed.tokens_per_second if running else 0.0),
        tokens_per_second_per_answer=_rounded(engine.speed.of_one_among(min(running + waiting + 1, most))),
        requires_key=bool(context.settings.api_keys),
        version=__version__,
    )


def _loading(engine: EngineClient) -> LoadingStatus | None:
    if engine.state not in (EngineState.LOADING, EngineState.RESTARTING) or engine.loading is None:
        return None
    return LoadingStatus(round(engine.loading.fraction, 3), engine.loading.phase)


def _kv_cache_usage(engine: EngineClient) -> float | None:
    if engine.info is None:
        return None
    stats = engine.stats  # of all engines
    return round(stats.blocks_in_use / stats.blocks_total, 4) if stats.blocks_total else 0.0


def _engine(engine: EngineView) -> EngineStatus:
    usage = engine.kv_cache_usage
    return EngineStatus(
        engine.id, engine.state.value, engine.running, engine.waiting, None if usage is None else round(usage, 4)
    )


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)

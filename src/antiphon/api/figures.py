"""What the metrics ask for at each scrape: the engines' state and counts, and the server's processes."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.api.served_model import ServedModel
from antiphon.engine.client import EngineClient, EngineState, EngineView
from antiphon.engine.wire import EngineStats
from antiphon.metrics import ChildProcess, EngineCounts, EngineFigures, EngineLimits, EnginesReport, FleetFigures


def child_processes(model: ServedModel, engine: EngineClient) -> Iterator[ChildProcess]:
    """The processes that serve beside this one."""
    for each in engine.engines():
        if each.pid is not None:
            yield ChildProcess("engine", each.pid, engine=str(each.id))
    for name, pid in model.text.helper_processes().items():
        yield ChildProcess(name, pid)


def engines_report(engine: EngineClient) -> EnginesReport:
    """The engines' state for the metrics."""
    total = engine.stats
    counts = EngineCounts(
        restarts=engine.restarts,
        breakers_opened=engine.breakers_opened,
        steps=total.step,
        busy_seconds=total.busy_seconds,
        computed_tokens=total.num_computed_tokens,
        prefix_queries=total.num_prefix_queries,
        prefix_hits=total.num_prefix_hits,
        preemptions=total.num_preemptions,
        shared_requests=engine.num_shared,
        inexact_continuations=engine.num_inexact,
        drafted_tokens=total.num_drafted_tokens,
        accepted_draft_tokens=total.num_accepted_tokens,
        draft_saved_seconds=total.draft_saved_seconds,
        draft_spent_seconds=total.draft_spent_seconds,
    )
    figures = [_figures(each, engine.stats_of(each.id)) for each in engine.engines()]
    fleet = FleetFigures(
        engines=len(figures),
        wanted=engine.engines_wanted,
        most=engine.settings.max_engines,
        wait_seconds=engine.demand().wait,
    )
    return EnginesReport(figures, counts, _limits(engine), fleet)


def _limits(engine: EngineClient) -> EngineLimits:
    server, each, ready = engine.settings, engine.engine_settings, engine.info_of(None)
    return EngineLimits(
        requests=server.max_queued_requests,
        wait_seconds=server.max_wait,
        sequences=each.max_num_sequences,
        step_tokens=each.max_batch_tokens,
        step_seconds=each.target_step_seconds,
        kv_block_tokens=ready.block_size if ready else 0,
    )


def _figures(engine: EngineView, stats: EngineStats) -> EngineFigures:
    return EngineFigures(
        engine=str(engine.id),
        ready=engine.state is EngineState.READY,
        running=stats.running,
        waiting=stats.waiting,
        blocks_free=stats.blocks_free,
        blocks_cached=stats.blocks_cached,
        blocks_in_use=stats.blocks_in_use,
        step_seconds=stats.step_seconds,
        step_tokens=stats.step_tokens,
        tokens_owed=engine.tokens_owed,
        breaker_state=engine.breaker,
        instruction_set=engine.instruction_set or "",
        fingerprint=engine.fingerprint or "",
        model_fingerprint=engine.model_fingerprint or "",
        version=engine.versions.get("antiphon", ""),
    )

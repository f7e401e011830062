"""The GPUs' figures: the driver's where it has them, else the engines'; a driver that blocks keeps nobody waiting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from threading import Event

import pytest
from patience import PATIENCE

from antiphon.api import gpus
from antiphon.api.gpus import GpuWatch
from antiphon.engine.client import EngineGpu
from antiphon.machine.gpu_usage import GpuUsage
from antiphon.metrics import GpuFigures, Metrics

GIB = 1 << 30
ENGINE = EngineGpu("0", "a", "NVIDIA A40", True, 1, planned=8 * GIB, reserve=2 * GIB, used=9 * GIB, total=12 * GIB)
DRIVERS = GpuUsage(used=10 * GIB, total=12 * GIB, utilization=0.5, temperature=60.0)


def watch(*engines: EngineGpu, usage: Callable[[str], GpuUsage] | None = None) -> GpuWatch:
    return GpuWatch(lambda: engines, usage or (lambda uuid: DRIVERS), lambda: 100.0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may start the thread late."""
    monkeypatch.setattr(gpus, "_LONGEST_WAIT", PATIENCE)


async def figures(watched: GpuWatch) -> list[GpuFigures]:
    await watched.refresh()
    return watched.figures()


async def test_memory_is_the_drivers_where_it_reports_it_and_else_the_engines():
    (found,) = await figures(watch(ENGINE))
    assert (found.source, found.used, found.total) == ("nvml", 10 * GIB, 12 * GIB)
    (found,) = await figures(watch(ENGINE, usage=lambda uuid: GpuUsage(temperature=60.0)))
    assert (found.source, found.used, found.total) == ("engine", 9 * GIB, 12 * GIB)
    assert (found.temperature, found.utilization) == (60.0, None)


@pytest.mark.parametrize("engine", [replace(ENGINE, is_here=False), replace(ENGINE, uuid="")])
async def test_the_driver_is_not_asked_for_a_gpu_elsewhere_or_without_a_name(engine: EngineGpu):
    (found,) = await figures(watch(engine, usage=lambda uuid: pytest.fail("asked")))
    assert (found.source, found.used) == ("engine", 9 * GIB)


async def test_engines_on_one_gpu_are_one_series_with_their_plans_added():
    other = replace(ENGINE, uuid="b", number="1", reserve=GIB)
    first, second = await figures(watch(ENGINE, other, ENGINE))
    assert (first.gpu, first.planned, first.reserve) == ("0", 16 * GIB, 4 * GIB)
    assert (second.gpu, second.planned, second.reserve) == ("1", 8 * GIB, GIB)


async def test_while_engines_are_replaced_the_reserve_is_the_new_ones_plan():
    (found,) = await figures(watch(ENGINE, replace(ENGINE, generation=2, reserve=GIB)))
    assert (found.planned, found.reserve) == (16 * GIB, GIB)


@pytest.mark.parametrize(("used", "share"), [(9, 0.0), (10, 0.0), (11, 0.5), (12, 1.0)])
async def test_only_what_is_missing_of_the_reserve_counts(used: int, share: float):
    watched = watch(ENGINE, usage=lambda uuid: GpuUsage(used=used * GIB, total=12 * GIB))
    await watched.refresh()
    assert watched.reserve_usage() == share


async def test_the_fullest_gpu_decides():
    full = replace(ENGINE, uuid="b", number="1")
    watched = watch(ENGINE, full, usage=lambda uuid: GpuUsage(used=(12 if uuid == "b" else 9) * GIB, total=12 * GIB))
    await watched.refresh()
    assert watched.reserve_usage() == 1.0
    assert watch(replace(ENGINE, reserve=0)).reserve_usage() is None, "no plan"
    assert watch().reserve_usage() is None, "no GPU"


async def test_a_driver_that_blocks_is_asked_once_and_its_old_answers_are_dropped(monkeypatch: pytest.MonkeyPatch):
    go_on, asked, now = Event(), [], 0.0

    def usage(uuid: str) -> GpuUsage:
        asked.append(uuid)
        if len(asked) > 1:
            go_on.wait()
        return DRIVERS

    watched = GpuWatch(lambda: [ENGINE], usage, lambda: now)
    assert (await figures(watched))[0].source == "nvml"
    for now in (2.0, 4.0, 6.0):  # the clock
        assert watched.figures()[0].source == ("nvml" if now < 5 else "engine")
    monkeypatch.setattr(gpus, "_LONGEST_WAIT", 0.05)
    await watched.refresh()  # returns, although nothing comes
    monkeypatch.setattr(gpus, "_LONGEST_WAIT", PATIENCE)
    assert len(asked) == 2
    go_on.set()
    assert watched._reading is not None
    watched._reading.result()
    now = 8.0
    assert watched.figures()[0].source == "engine", "an answer is as old as its question"
    assert (await figures(watched))[0].source == "nvml"


async def test_a_reading_that_fails_is_logged_and_the_next_one_counts(caplog: pytest.LogCaptureFixture):
    answers = [DRIVERS]

    def usage(uuid: str) -> GpuUsage:
        if len(answers) == 1:
            answers.append(DRIVERS)
            raise RuntimeError("what pynvml cannot decode")
        return answers.pop()

    watched = watch(ENGINE, usage=usage)
    with caplog.at_level(logging.WARNING, logger="antiphon.api.gpus"):
        assert (await figures(watched))[0].source == "engine"
    assert "cannot be read: what pynvml cannot decode" in caplog.text
    assert (await figures(watched))[0].source == "nvml"


def test_what_is_not_known_has_no_series():
    metrics = Metrics("1", "m")
    metrics.watch_gpus(lambda: [GpuFigures("0", "a", "NVIDIA A40", "engine", used=0, total=12, utilization=0.0)])
    text = metrics.render().decode()
    assert 'antiphon_gpu_memory_used_bytes{gpu="0",uuid="a"} 0.0' in text
    assert 'antiphon_gpu_utilization_ratio{gpu="0",uuid="a"} 0.0' in text
    assert 'antiphon_gpu_info{gpu="0",name="NVIDIA A40",source="engine",uuid="a"} 1.0' in text
    assert "antiphon_gpu_power_watts{" not in text
    assert "antiphon_gpu_memory_reserve_usage_ratio{" not in text

"""A server whose engine uses a GPU: its metrics, and `--degrade` by what is left of the memory beside the plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from fake_nvml import DRIVER_NOT_LOADED, GPU, FakeNvml, build, use
from http_server import Served, serving
from patience import PATIENCE

from antiphon.api.degrading import Degrading
from antiphon.degrade_rules import Signal, parse_rules

pytestmark = pytest.mark.asyncio(loop_scope="module")

GIB = 1 << 30
PLANNED, RESERVE = 8 * GIB, 2 * GIB  # of 12 GiB


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNvml]:
    folder = tmp_path_factory.mktemp("nvml")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("antiphon.api.gpus._LONGEST_WAIT", PATIENCE)  # else a busy machine shows older figures
        yield use(build(folder), monkeypatch, folder / "state")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, driver: FakeNvml) -> AsyncIterator[Served]:
    driver.set(used=9 * GIB, total=12 * GIB)
    async with serving(
        tmp_path_factory.mktemp("model"),
        engine={"gpu_bytes": PLANNED, "memory_reserve": RESERVE},
        fake={"gpu": GPU, "gpu_memory": (9 * GIB, 12 * GIB)},
        degrade=parse_rules("memory_reserve>90%: max_tokens=4"),
        degrade_stay=0.05,
    ) as server:
        yield server


def series(name: str) -> str:
    return f'antiphon_gpu_{name}{{gpu="0",uuid="{GPU}"}}'


async def test_metrics_have_the_drivers_figures_of_this_moment_and_the_plan(server: Served, driver: FakeNvml):
    for used in (9 * GIB, 9 * GIB + 1):
        driver.set(used=used)
        found = await server.metrics()
        assert found[series("memory_used_bytes")] == used
    assert found[f'antiphon_gpu_info{{gpu="0",name="Fake GPU",source="nvml",uuid="{GPU}"}}'] == 1
    assert found[series("memory_total_bytes")] == 12 * GIB
    assert found[series("memory_planned_bytes")] == PLANNED
    assert found[series("memory_reserve_bytes")] == RESERVE
    assert found[series("utilization_ratio")] == 0.4
    assert found[series("temperature_celsius")] == 61
    assert found[series("temperature_limit_celsius")] == 95
    assert found[series("power_watts")] == 180.5
    assert found[series("power_limit_watts")] == 300


async def test_where_the_driver_reports_no_memory_the_engine_does(server: Served, driver: FakeNvml):
    driver.set(mig_mode=1)
    found = await server.metrics()
    assert found[f'antiphon_gpu_info{{gpu="0",name="Fake GPU",source="engine",uuid="{GPU}"}}'] == 1
    assert found[series("memory_used_bytes")] == 9 * GIB
    assert found[series("temperature_celsius")] == 61
    assert series("utilization_ratio") not in found
    driver.set(mig_mode=0)


async def test_a_full_gpu_by_plan_does_not_degrade_and_memory_beyond_the_plan_does(server: Served, driver: FakeNvml):
    """Of 12 GiB the plan takes 9 and leaves 2 free: 1.9 of these are gone when 11.9 are in use."""
    degrading: Degrading = server.server.app.state.context.degrading

    async def measured(used: float) -> float:
        driver.set(used=int(used * GIB))
        await server.metrics()  # reads the driver
        return degrading._measured(0.0)[Signal.MEMORY_RESERVE]

    assert await measured(9) == await measured(10) == 0.0
    assert await measured(11.5) == pytest.approx(0.75)
    driver.set(used=int(11.9 * GIB))
    while not degrading.level:
        await server.complete(max_tokens=1)
        await asyncio.sleep(0.02)
    assert (await server.complete(max_tokens=50)).json()["usage"]["completion_tokens"] == 4
    driver.set(used=9 * GIB)
    while degrading.level:
        await server.complete(max_tokens=1)
        await asyncio.sleep(0.02)
    assert (await server.complete(max_tokens=50)).json()["usage"]["completion_tokens"] == 50


@pytest.mark.parametrize("planned", [0, PLANNED])
async def test_the_reserve_is_at_most_what_was_free_at_the_start(tmp_path: Path, driver: FakeNvml, planned: int):
    """The plan may be for the CPU, or for a GPU with more memory."""
    driver.set(used=11 * GIB)
    engine = {"gpu_bytes": planned, "memory_reserve": 99 * GIB}
    async with serving(tmp_path, engine=engine, fake={"gpu": GPU, "gpu_memory": (8 * GIB, 12 * GIB)}) as other:
        found = await other.metrics()
        assert found[series("memory_reserve_bytes")] == 4 * GIB
        assert found[series("memory_reserve_usage_ratio")] == 0.75
        assert found.get(series("memory_planned_bytes"), 0) == planned


async def test_an_engine_without_a_gpu_has_no_series(tmp_path: Path, driver: FakeNvml):
    driver.set(driver=DRIVER_NOT_LOADED)
    async with serving(tmp_path) as other:
        assert not [name for name in await other.metrics() if name.startswith("antiphon_gpu_")]

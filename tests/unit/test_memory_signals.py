"""The signals of memory are shares of the control group's limit, and of what the memory plan leaves free."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from machines import FakeMachine

from antiphon.api import degrading
from antiphon.api.degrading import _MemoryWatch
from antiphon.api.threads import TextThreads
from antiphon.degrade_rules import Signal
from antiphon.machine import see_memory

MIB = 1 << 20
CGROUP = "/sys/fs/cgroup"


@pytest.fixture
def threads() -> Iterator[TextThreads]:
    threads = TextThreads(8)
    yield threads
    threads.close()


def measured(watch: _MemoryWatch) -> dict[Signal, float]:
    """What it says once a reading is complete."""
    watch.shares()
    assert watch._reading is not None
    watch._reading.result()
    return dict(watch.shares())


@pytest.fixture(params=["version 1", "version 2"])
def limited(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine with much free memory, and a group that uses 950 of its 1,000 MiB; the kernel can drop 150 of these."""
    machine = FakeMachine(tmp_path)
    machine.memory(total=32_000 * MIB, available=24_000 * MIB)
    if request.param == "version 2":
        machine.member("0::/")
        machine.mount(CGROUP)
        stat = {"inactive_file": 150 * MIB}
        machine.group(CGROUP, memory_max=1000 * MIB, memory_current=950 * MIB, memory_stat=stat)
    else:
        machine.member("4:memory:/a")
        machine.mount(f"{CGROUP}/memory", controllers="memory")
        files = {"memory_limit_in_bytes": 1000 * MIB, "memory_usage_in_bytes": 950 * MIB}
        machine.group(f"{CGROUP}/memory/a", **files, memory_stat={"total_inactive_file": 150 * MIB})
    monkeypatch.setattr(degrading, "see_memory", partial(see_memory, machine.root))
    return machine


def test_the_share_is_that_of_the_groups_working_set(limited: FakeMachine, threads: TextThreads):
    watch = _MemoryWatch(threads, 0, lambda: 0.0)
    assert measured(watch) == {Signal.MEMORY: 0.8}


def test_of_the_planned_reserve_only_what_is_missing_counts(limited: FakeMachine, threads: TextThreads):
    for reserve, share in ((800 * MIB, 0.75), (200 * MIB, 0.0), (50 * MIB, 0.0)):
        watch = _MemoryWatch(threads, reserve, lambda: 0.0)
        assert measured(watch)[Signal.MEMORY_RESERVE] == share


def test_memory_is_read_once_a_second_and_never_waited_for(
    monkeypatch: pytest.MonkeyPatch, limited: FakeMachine, threads: TextThreads
):
    now, readings = 0.0, []
    real = degrading.see_memory
    monkeypatch.setattr(degrading, "see_memory", lambda: readings.append(now) or real())
    watch = _MemoryWatch(threads, 0, lambda: now)
    for _ in range(12):
        watch.shares()
        if watch._reading is not None:
            watch._reading.result()
        now += 0.25
    assert readings == [0.0, 1.0, 2.0]
    threads.close()
    now += 10
    assert watch.shares() == {Signal.MEMORY: 0.8}, "the last reading, when there are no threads any more"

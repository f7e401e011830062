"""What processes and containers use, read from laid-out trees of /proc and /sys and from real processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from machines import FakeMachine

from antiphon.machine import (
    CpuUsage,
    MemoryUsage,
    Pressure,
    Starvation,
    cpu_usage,
    memory_usage,
    pressure,
    process_usage,
)

GIB = 1 << 30
CGROUP = "/sys/fs/cgroup"


@pytest.fixture
def machine(tmp_path) -> FakeMachine:
    """32 GiB, in no control group yet."""
    machine = FakeMachine(tmp_path)
    machine.memory(total=32 * GIB, available=24 * GIB)
    return machine


def test_without_a_limit_the_processes_count_against_the_machine(machine):
    assert memory_usage(3 * GIB, machine.root) == MemoryUsage(3 * GIB, 32 * GIB)


def test_with_a_limit_the_groups_working_set_counts(machine):
    """File pages that are not in use do not count: the kernel takes them back before it kills anybody."""
    machine.member("0::/")
    machine.mount(CGROUP)
    stat = {"inactive_file": GIB, "active_file": GIB}
    machine.group(CGROUP, memory_max=4 * GIB, memory_current=3 * GIB, memory_stat=stat)
    assert memory_usage(1, machine.root) == MemoryUsage(2 * GIB, 4 * GIB)


def test_the_working_set_of_version_1(machine):
    machine.member("4:memory:/docker/a")
    machine.mount(f"{CGROUP}/memory", controllers="memory", root="/docker/a")
    machine.group(
        f"{CGROUP}/memory",
        memory_limit_in_bytes=4 * GIB,
        memory_usage_in_bytes=3 * GIB,
        memory_stat={"total_inactive_file": GIB},
    )
    assert memory_usage(1, machine.root) == MemoryUsage(2 * GIB, 4 * GIB)


def test_throttling_of_version_2_is_that_of_the_tightest_group(machine):
    machine.member("0::/pod/server")
    machine.mount(CGROUP)
    machine.group(f"{CGROUP}/pod/server", cpu_max="400000 100000", cpu_stat={"nr_periods": 1, "throttled_usec": 1})
    tight = {"nr_periods": 50, "nr_throttled": 7, "throttled_usec": 2_500_000}
    machine.group(f"{CGROUP}/pod", cpu_max="150000 100000", cpu_stat=tight)
    assert cpu_usage(machine.root) == CpuUsage(1.5, 2.5, 7, 50)


def test_throttling_of_version_1_is_counted_in_nanoseconds(machine):
    machine.member("3:cpu,cpuacct:/")
    machine.mount(f"{CGROUP}/cpu", controllers="cpu,cpuacct")
    stat = {"nr_periods": 9, "nr_throttled": 3, "throttled_time": 4_000_000_000}
    machine.group(f"{CGROUP}/cpu", cpu_cfs_quota_us=200_000, cpu_cfs_period_us=100_000, cpu_stat=stat)
    assert cpu_usage(machine.root) == CpuUsage(2.0, 4.0, 3, 9)


def test_without_a_quota_the_cpus_that_may_be_used_are_the_limit(machine):
    assert cpu_usage(machine.root) == CpuUsage(float(len(os.sched_getaffinity(0))))


def test_pressure_is_that_of_the_own_group_where_it_is_measured(machine):
    def lines(some: int, full: int) -> str:
        return f"some avg10=0.00 avg60=1.00 avg300=0.00 total={some}\nfull avg10=0.00 total={full}"

    machine.member("0::/pod")
    machine.mount(CGROUP)
    machine.group(f"{CGROUP}/pod", memory_pressure=lines(1_500_000, 500_000))
    machine.write("/proc/pressure/memory", lines(9, 9))
    machine.write("/proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=3000000")
    assert pressure(machine.root) == {"memory": Pressure(1.5, 0.5), "cpu": Pressure(3.0, 0.0)}


def test_without_pressure_there_is_none(machine):
    assert pressure(machine.root) == {}


def test_a_process_is_described_while_it_runs_and_not_after():
    program = "x = bytearray(50_000_000); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    usage = process_usage(child.pid)
    assert usage
    assert usage.parent == os.getpid()
    assert 50_000_000 < usage.resident_bytes < usage.virtual_bytes
    assert 0 < usage.shared_bytes < usage.resident_bytes
    assert (usage.open_files, usage.threads) == (3, 1)
    assert usage.cpu_seconds > 0
    child.kill()
    while process_usage(child.pid):  # it becomes a zombie, which has nothing any more
        pass
    child.communicate()
    assert process_usage(child.pid) is None


def test_a_name_with_spaces_and_brackets_is_no_field(tmp_path):
    machine = FakeMachine(tmp_path)
    rest = "S 7 0 0 0 0 0 0 0 0 0 150 50 0 0 0 0 3 0 1000"
    machine.write("/proc/5/stat", f"5 (a) S 9 9 (b) {rest}")
    machine.write("/proc/5/statm", "100 50 20 0 0 0 0")
    usage = process_usage(5, machine.root)
    ticks = os.sysconf("SC_CLK_TCK")
    assert usage
    assert (usage.parent, usage.cpu_seconds, usage.threads) == (7, 200 / ticks, 3)
    assert usage.started_after == 1000 / ticks


def test_of_several_threads_the_one_that_waited_longest_counts(tmp_path):
    machine = FakeMachine(tmp_path)
    now = 0.0
    starvation = Starvation(5, machine.root, lambda: now)
    assert starvation.seconds() == 0  # there is no such process
    show_thread(machine, 5, "S", ran=7, waited=1)
    show_thread(machine, 6, "S", ran=7, waited=4)
    starvation.seconds()
    now = 10.0
    show_thread(machine, 5, "S", ran=8, waited=1.5)
    show_thread(machine, 6, "S", ran=8, waited=4.25)
    machine.write("/proc/5/task/7/schedstat", "")  # it ends
    assert starvation.seconds() == 0.5
    assert starvation.seconds() == 0


@pytest.mark.parametrize(
    ("state", "ran", "starved"),
    [
        ("R", 0.0, 2.0),  # it has been ready all the time
        ("R", 1.75, 0.25),  # it computes, nearly undisturbed
        ("S", 0.0, 0.0),  # it waits for something else
        ("D", 0.0, 0.0),  # for a disk
        ("T", 0.0, 0.0),  # it is stopped
    ],
)
def test_a_wait_that_goes_on_is_known_by_the_threads_state(tmp_path, state, ran, starved):
    """The kernel counts a wait when it ends."""
    machine = FakeMachine(tmp_path)
    now = 0.0
    starvation = Starvation(5, machine.root, lambda: now)
    show_thread(machine, 5, "S", ran=3, waited=1)
    starvation.seconds()
    now = 2.0
    show_thread(machine, 5, state, ran=3 + ran, waited=1)
    assert starvation.seconds() == starved


def show_thread(machine: FakeMachine, thread: int, state: str, *, ran: float, waited: float) -> None:
    machine.write(f"/proc/5/task/{thread}/stat", f"{thread} (a (b) c) {state} 1 5 5 0")
    machine.write(f"/proc/5/task/{thread}/schedstat", f"{ran * 1e9:.0f} {waited * 1e9:.0f} 3")

"""What a machine and the containers on it allow, read from trees of /proc and /sys that a test lays out."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import UNLIMITED_V1, FakeMachine

from antiphon.machine import (
    Processors,
    Seat,
    choose_threads,
    default_engines,
    divide,
    free_memory_bytes,
    see_machine,
    see_memory,
    see_processors,
)
from antiphon.machine.control_groups import _VERSION_2, _groups
from antiphon.machine.processors import Node

GIB = 1 << 30
CGROUP = "/sys/fs/cgroup"


@pytest.fixture
def machine(tmp_path) -> FakeMachine:
    """32 GiB, 24 of them available, in no control group yet."""
    machine = FakeMachine(tmp_path)
    machine.memory(total=32 * GIB, available=24 * GIB)
    return machine


def test_without_control_groups_the_machine_decides(machine):
    memory = see_memory(machine.root)
    assert (memory.total, memory.free, memory.limit) == (32 * GIB, 24 * GIB, None)


def test_version_2_inside_a_container_that_sees_itself_as_the_root(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, memory_max=4 * GIB, memory_current=GIB, memory_stat={"anon": 1, "inactive_file": 0})
    memory = see_memory(machine.root)
    assert (memory.total, memory.free, memory.limit.group) == (4 * GIB, 3 * GIB, "/")


def test_inactive_file_pages_count_as_free(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    stat = {"inactive_file": 2 * GIB, "active_file": GIB, "inactive_anon": GIB}
    machine.group(CGROUP, memory_max=4 * GIB, memory_current=3 * GIB, memory_stat=stat)
    assert see_memory(machine.root).free == 3 * GIB


def test_the_tightest_of_nested_groups_counts(machine):
    machine.member("0::/kubepods/pod1/server")
    machine.mount(CGROUP)
    machine.group(f"{CGROUP}/kubepods/pod1/server", memory_max="max", memory_current=GIB)
    machine.group(f"{CGROUP}/kubepods/pod1", memory_max=6 * GIB, memory_current=5 * GIB)
    machine.group(f"{CGROUP}/kubepods", memory_max=16 * GIB, memory_current=6 * GIB)
    machine.group(CGROUP)
    memory = see_memory(machine.root)
    assert (memory.total, memory.free, memory.limit.group) == (6 * GIB, GIB, "/kubepods/pod1")


def test_a_large_limit_whose_group_is_full_is_tighter_than_a_small_one_that_is_empty(machine):
    machine.member("0::/outer/inner")
    machine.mount(CGROUP)
    machine.group(f"{CGROUP}/outer", memory_max=16 * GIB, memory_current=15 * GIB)
    machine.group(f"{CGROUP}/outer/inner", memory_max=4 * GIB, memory_current=0)
    assert see_memory(machine.root).free == GIB


def test_memory_high_is_a_limit_too(machine):
    machine.member("0::/app.slice")
    machine.mount(CGROUP)
    machine.group(f"{CGROUP}/app.slice", memory_max=8 * GIB, memory_high=2 * GIB, memory_current=GIB)
    assert see_memory(machine.root).free == GIB


def test_a_group_over_its_limit_has_nothing_free(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, memory_max=GIB, memory_current=2 * GIB)
    assert see_memory(machine.root).free == 0


def test_a_limit_above_what_the_machine_has_does_not_count(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, memory_max=100 * GIB, memory_current=GIB)
    memory = see_memory(machine.root)
    assert (memory.free, memory.limit) == (24 * GIB, None)


def test_version_1_with_the_hosts_names_in_the_container(machine):
    """Docker without a cgroup namespace: the path is the host's, and the mount begins at the container's group."""
    machine.member("4:memory:/docker/abc", "2:cpu,cpuacct:/docker/abc")
    machine.mount(f"{CGROUP}/memory", controllers="memory", root="/docker/abc")
    usage = {"memory_limit_in_bytes": 2 * GIB, "memory_usage_in_bytes": GIB}
    machine.group(f"{CGROUP}/memory", **usage, memory_stat={"inactive_file": 1, "total_inactive_file": GIB // 2})
    assert see_memory(machine.root).free == 3 * GIB // 2


def test_version_1_walks_up_to_where_a_limit_is(machine):
    machine.member("4:memory:/jobs/42/step")
    machine.mount(f"{CGROUP}/memory", controllers="memory")
    unlimited = {"memory_limit_in_bytes": UNLIMITED_V1, "memory_usage_in_bytes": 0}
    machine.group(f"{CGROUP}/memory", **unlimited)
    machine.group(f"{CGROUP}/memory/jobs/42/step", **unlimited)
    machine.group(f"{CGROUP}/memory/jobs/42", memory_limit_in_bytes=GIB, memory_usage_in_bytes=0)
    memory = see_memory(machine.root)
    assert (memory.free, memory.limit.group) == (GIB, "/jobs/42")


def test_version_1_groups_without_hierarchy_do_not_limit_those_inside(machine):
    machine.member("4:memory:/outer/inner")
    machine.mount(f"{CGROUP}/memory", controllers="memory")
    outer = {"memory_limit_in_bytes": GIB, "memory_usage_in_bytes": 0, "memory_use_hierarchy": 0}
    machine.group(f"{CGROUP}/memory/outer", **outer)
    machine.group(f"{CGROUP}/memory/outer/inner", **outer | {"memory_limit_in_bytes": 2 * GIB})
    assert see_memory(machine.root).free == 2 * GIB


def test_a_hybrid_machine_keeps_memory_in_version_1(machine):
    machine.member("4:memory:/user", "1:name=systemd:/user/session", "0::/user/session")
    machine.mount(f"{CGROUP}/systemd", controllers="xattr,name=systemd")
    machine.mount(f"{CGROUP}/memory", controllers="memory")
    machine.mount(f"{CGROUP}/unified")
    machine.group(f"{CGROUP}/unified/user/session")
    machine.group(f"{CGROUP}/memory/user", memory_limit_in_bytes=GIB, memory_usage_in_bytes=0)
    assert see_memory(machine.root).free == GIB


@pytest.mark.parametrize("path", ["/../elsewhere", "/not/mounted/here"])
def test_a_path_that_is_not_there_falls_back_to_the_mounted_root(machine, path):
    machine.member(f"0::{path}")
    machine.mount(CGROUP)
    machine.group(CGROUP, memory_max=GIB, memory_current=0)
    assert see_memory(machine.root).free == GIB


def test_names_with_blanks_and_colons(machine):
    machine.member("0::/my group/a:b")
    machine.mount("/sys/fs/my cgroup")
    machine.group("/sys/fs/my cgroup/my group/a:b", memory_max=GIB, memory_current=0)
    assert see_memory(machine.root).limit.group == "/my group/a:b"


@pytest.mark.parametrize("limit", ["", "many", "-1", "max"])
def test_files_that_say_no_number_set_no_limit(machine, limit):
    machine.member("0::/", "nonsense", "4:memory")
    machine.mount(CGROUP)
    machine.group(CGROUP, memory_max=limit, memory_current=0, cpu_max=limit)
    assert see_memory(machine.root).limit is None
    assert see_processors(machine.root, {0}).quota is None


@pytest.mark.parametrize(("allowed", "free", "total"), [("0-1", 24, 32), ("1", 5, 16), ("0", 9, 16)])
def test_memory_of_numa_nodes_that_this_process_may_not_use_is_not_free(machine, allowed, free, total):
    machine.node(0, "0-3", free=8 * GIB, inactive_file=GIB)
    machine.node(1, "4-7", free=5 * GIB)
    machine.write("/proc/self/status", f"Name:\tx\nMems_allowed_list:\t{allowed}")
    memory = see_memory(machine.root)
    assert (memory.free, memory.total) == (free * GIB, total * GIB)
    line = see_machine(root=machine.root).memory_line()
    assert line.endswith("GiB free" if allowed == "0-1" else f"GiB free on NUMA node {allowed}")


# --- threads


def test_one_thread_for_each_physical_core(machine):
    machine.cores([(0, 4), (1, 5), (2, 6), (3, 7)])
    processors = see_processors(machine.root, range(8))
    assert processors.num_cores == 4
    assert choose_threads(processors).threads == 4


def test_siblings_are_found_under_their_older_name(machine):
    machine.cores([(0, 1), (2, 3)], file="thread_siblings_list")
    assert see_processors(machine.root, range(4)).num_cores == 2


@pytest.mark.parametrize(("affinity", "cores"), [((0, 1), 2), ((0, 4), 1), ((4, 5, 6), 3), ((3,), 1)])
def test_only_cores_that_this_process_may_use_count(machine, affinity, cores):
    machine.cores([(0, 4), (1, 5), (2, 6), (3, 7)])
    assert choose_threads(see_processors(machine.root, affinity)).threads == cores


def test_a_machine_that_tells_nothing_has_a_core_for_each_cpu(machine):
    assert choose_threads(see_processors(machine.root, range(6))).threads == 6


@pytest.mark.parametrize(
    ("quota", "threads"), [("150000 100000", 2), ("100000 100000", 1), ("5000 100000", 1), ("max 100000", 8)]
)
def test_a_cpu_quota_is_rounded_up(machine, quota, threads):
    machine.member("0::/a")
    machine.mount(CGROUP)
    machine.group(f"{CGROUP}/a", cpu_max=quota)
    assert choose_threads(see_processors(machine.root, range(8))).threads == threads


def test_the_least_quota_of_nested_groups_counts(machine):
    machine.member("0::/a/b")
    machine.mount(CGROUP)
    machine.group(f"{CGROUP}/a/b", cpu_max="600000 100000")
    machine.group(f"{CGROUP}/a", cpu_max="200000 100000")
    quota = see_processors(machine.root, range(8)).quota
    assert (quota.cpus, quota.group) == (2.0, "/a")


@pytest.mark.parametrize(("quota", "threads"), [(250_000, 3), (-1, 8)])
def test_a_quota_of_version_1(machine, quota, threads):
    machine.member("2:cpu,cpuacct:/docker/abc")
    machine.mount(f"{CGROUP}/cpu,cpuacct", controllers="cpu,cpuacct", root="/docker/abc")
    machine.group(f"{CGROUP}/cpu,cpuacct", cpu_cfs_quota_us=quota, cpu_cfs_period_us=100_000)
    assert choose_threads(see_processors(machine.root, range(8))).threads == threads


def test_a_wish_overrules_cores_and_quota(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, cpu_max="100000 100000")
    assert choose_threads(see_processors(machine.root, range(4)), 7).threads == 7


def two_nodes(machine: FakeMachine) -> FakeMachine:
    """Two nodes of four cores with two threads each, numbered as servers do: siblings are eight apart."""
    machine.cores([(core, core + 8) for core in range(8)])
    machine.node(0, "0-3,8-11", free=2 * GIB)
    machine.node(1, "4-7,12-15", free=3 * GIB)
    return machine


def test_threads_stay_on_one_numa_node_and_say_so(machine):
    seen = see_processors(two_nodes(machine).root, range(16))
    choice = choose_threads(seen)
    assert (choice.threads, choice.node.id) == (4, 1)  # the one with more free memory
    assert choice.node.cpus == {4, 5, 6, 7, 12, 13, 14, 15}


def test_the_node_with_more_of_our_cores_wins(machine):
    seen = see_processors(two_nodes(machine).root, [0, 1, 2, 4, 12])
    choice = choose_threads(seen)
    assert (choice.threads, choice.node.id, choice.node.cpus) == (3, 0, {0, 1, 2})


def test_an_affinity_on_one_node_leaves_nothing_to_choose(machine):
    choice = choose_threads(see_processors(two_nodes(machine).root, range(4)))
    assert (choice.threads, choice.node) == (4, None)


@pytest.mark.parametrize(("wish", "node"), [(1, 1), (4, 1), (5, None), (16, None)])
def test_more_threads_than_a_node_has_cores_use_every_node(machine, wish, node):
    choice = choose_threads(see_processors(two_nodes(machine).root, range(16)), wish)
    assert (choice.threads, choice.node and choice.node.id) == (wish, node)


def test_a_quota_below_a_nodes_cores_still_stays_on_the_node(machine):
    two_nodes(machine).member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, cpu_max="250000 100000")
    choice = choose_threads(see_processors(machine.root, range(16)))
    assert (choice.threads, choice.node.id) == (3, 1)


def test_nodes_that_do_not_list_every_cpu_are_not_believed(machine):
    machine.node(0, "0-1")
    choice = choose_threads(see_processors(machine.root, range(4)))
    assert (choice.threads, choice.node) == (4, None)


# --- several engines


def test_people_are_shown_that_there_is_one_engine_for_each_node(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    seen = see_machine(root=two_nodes(machine).root)
    assert seen.limits()[1] == (
        "NUMA nodes: 0 with 4 cores, 1 with 4 cores; one engine for each, if memory allows; "
        "--threads above 4 makes it one on all nodes"
    )


def test_there_is_one_engine_for_each_node(machine):
    processors = see_processors(two_nodes(machine).root, range(16))
    assert default_engines(processors) == 2
    seats = divide(processors, 2)
    assert [set(seat.cpus) for seat in seats] == [set(node.cpus) for node in processors.nodes]
    assert [seat.threads for seat in seats] == [node.num_cores for node in processors.nodes]


def test_a_single_engine_chooses_its_cores_by_itself(machine):
    processors = see_processors(two_nodes(machine).root, range(16))
    assert divide(processors, 1, 3) == (Seat((), 3),)


def test_more_threads_than_a_node_has_cores_need_one_engine_on_all_nodes(machine):
    assert default_engines(see_processors(two_nodes(machine).root, range(16)), 5) == 1


def test_a_quota_below_all_cores_is_for_one_engine(machine):
    two_nodes(machine).member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, cpu_max="600000 100000")
    processors = see_processors(machine.root, range(16))
    assert default_engines(processors) == 1
    assert [seat.threads for seat in divide(processors, 2)] == [3, 3]  # if there are to be two anyway


@given(st.integers(1, 40), st.integers(0, 6))
def test_engines_get_cores_of_their_own_on_one_node_as_long_as_there_are_enough(num_engines, threads):
    nodes = (
        Node(0, frozenset(range(8)), 4, 0, tuple(frozenset([n, n + 4]) for n in range(4))),
        Node(1, frozenset(range(8, 14)), 6, 0, tuple(frozenset([n]) for n in range(8, 14))),
    )
    seats = divide(Processors(frozenset(range(14)), 10, nodes, None), num_engines, threads)
    assert len(seats) == num_engines
    if num_engines == 1:
        return
    for seat in seats:
        assert any(node.cpus.issuperset(seat.cpus) for node in nodes)
        assert seat.cpus
        assert seat.threads >= 1
        assert not threads or seat.threads == threads
    if num_engines <= 10 and not threads:
        used = [cpu for seat in seats for cpu in seat.cpus]
        assert len(used) == len(set(used))
        assert sum(seat.threads for seat in seats) == 10 or num_engines <= 1


# --- what people are shown


def test_people_are_shown_every_limit(machine, monkeypatch):
    two_nodes(machine).member("0::/kubepods/pod1")
    machine.mount(CGROUP)
    limits = {"memory_max": 4 * GIB, "memory_current": GIB, "cpu_max": "150000 100000"}
    machine.group(f"{CGROUP}/kubepods/pod1", **limits)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    seen = see_machine(root=machine.root)
    assert seen.threads_line() == "2 threads (the CPU quota is 1.5, on NUMA node 1 of 2)"
    assert seen.memory_line() == "memory 3.0 of 4.0 GiB free (limit of control group /kubepods/pod1)"
    assert seen.limits() == [
        "16 logical CPUs may be used, on 8 physical cores",
        "control group /kubepods/pod1 allows 1.5 CPUs",
        "NUMA nodes: 0 with 4 cores, 1 with 4 cores; threads stay on node 1, and --threads above 4 uses all of them",
        "memory 3.0 of 4.0 GiB free (limit of control group /kubepods/pod1)",
    ]
    assert see_machine(9, machine.root).limits()[2].endswith("9 threads use all of them")
    report = seen.report()
    assert (report["threads"], report["numa_node"], report["cpu_quota"]) == (2, 1, 1.5)
    assert (report["memory_total"], report["memory_free"]) == (4 * GIB, 3 * GIB)


# --- this machine


def test_this_machine_is_read():
    processors = see_processors()
    assert processors.cpus == os.sched_getaffinity(0)
    assert 1 <= processors.num_cores <= len(processors.cpus)
    assert 1 <= choose_threads(processors).threads <= processors.num_cores
    assert free_memory_bytes() > 1 << 20


def test_a_thread_that_stays_on_a_node_keeps_to_its_cpus():
    """In a process of its own; on a node with one CPU, so that it differs from what the machine has."""
    cpu = min(os.sched_getaffinity(0))
    script = (
        "import os, sys; from antiphon.machine import *; from antiphon.machine.processors import Node; "
        "stay_on(Node(0, frozenset([int(sys.argv[1])]), 1, 0)); "
        "print(sorted(os.sched_getaffinity(0)), choose_threads(see_processors()).threads)"
    )
    result = subprocess.run([sys.executable, "-c", script, str(cpu)], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [f"[{cpu}]", "1"]


def test_the_engine_keeps_to_the_node_that_was_chosen(machine):
    """As the engine's process does before it loads anything; the nodes are laid out, the CPUs are real."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("this process may run on one CPU only")
    machine.node(0, str(cpus[0]), free=GIB)
    machine.node(1, str(cpus[1]), free=2 * GIB)
    script = (
        "import os, sys, pathlib; from antiphon.config import EngineConfig; "
        "from antiphon.engine.worker import __main__ as worker; "
        "from antiphon.machine import see_processors; os.sched_setaffinity(0, map(int, sys.argv[2:])); "
        "worker.see_processors = lambda: see_processors(pathlib.Path(sys.argv[1])); "
        "print(worker._with_threads(EngineConfig('m')).threads, *os.sched_getaffinity(0))"
    )
    command = [sys.executable, "-c", script, str(machine.root), *map(str, cpus[:2])]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", str(cpus[1])]


_OWN_LOOK = (
    "import json, sys; sys.stdin.readline(); from antiphon.machine import see_machine; "
    "print(json.dumps(see_machine().report()))"
)


def _report_in(*groups: Path) -> dict[str, object]:
    """What a process sees that was put into these control groups before it looked."""
    process = subprocess.Popen(
        [sys.executable, "-c", _OWN_LOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        for group in groups:
            (group / "cgroup.procs").write_text(str(process.pid))
        out, _ = process.communicate("\n", timeout=120)
        assert process.returncode == 0
        return json.loads(out)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def real_group() -> Iterator[Callable[..., Path]]:
    """Makes control groups below this process's own; skips where the system does not let it."""
    made: list[Path] = []

    def make(controller: str, **limits: str) -> Path:
        own = next((g for name in (controller, _VERSION_2) for g in _groups(name, Path("/")) if g.is_own), None)
        if own is None:
            pytest.skip(f"no control group of {controller} is mounted here")
        group = own.folder / f"antiphon-test-{os.getpid()}"
        try:
            group.mkdir()
            made.append(group)
            for name, value in limits.items():
                file = group / name.replace("_", ".", 1)
                if not file.exists():
                    pytest.skip(f"the control group has no {file.name}: the controller is not passed on to it")
                file.write_text(value)
        except OSError as error:
            pytest.skip(f"control groups cannot be made here: {error}")
        return group

    yield make
    for group in made:
        for _ in range(1000):  # until the kernel has noticed that its last process is gone
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.01)


def _is_version_1(controller: str) -> bool:
    return any(controller in line.split(":")[1].split(",") for line in Path("/proc/self/cgroup").read_text().split())


def test_a_real_control_group_limits_memory(real_group):
    limit = 512 << 20
    if _is_version_1("memory"):
        group = real_group("memory", memory_limit_in_bytes=str(limit))
    else:
        group = real_group("memory", memory_max=str(limit))
    report = _report_in(group)
    assert report["memory_total"] == limit
    assert limit / 2 < report["memory_free"] <= limit
    assert str(report["memory_limit_group"]).endswith(group.name)


def test_a_real_control_group_limits_cpu_time(real_group):
    if _is_version_1("cpu"):
        group = real_group("cpu", cpu_cfs_period_us="100000", cpu_cfs_quota_us="50000")
    else:
        group = real_group("cpu", cpu_max="50000 100000")
    report = _report_in(group)
    assert report["cpu_quota"] == 0.5
    assert report["threads"] == math.ceil(0.5)

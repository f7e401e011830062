"""`antiphon doctor` on machines that a test lays out: each thing that is wrong is found, and what is right is not."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import FakeMachine

from antiphon.doctor import activity, limits, memory, network, processor, software, storage, surroundings
from antiphon.doctor.checks import Intentions, machine_checks
from antiphon.doctor.examination import Check, examine
from antiphon.doctor.findings import Finding, Level, note, ok, problem, warning
from antiphon.doctor.host import Host, parse_limits
from antiphon.runtime.fingerprint import EXPECTED

GIB = 1 << 30
CGROUP = "/sys/fs/cgroup"
CPU = "/sys/devices/system/cpu"
BEST = ["amx", "avx512", "avxvnni", "avx2", "scalar"]
AVX2 = "avx2 fma f16c"
AVX512 = f"{AVX2} avx512f avx512bw avx512dq avx512vl avx512_vnni"
AMX = f"{AVX512} amx_tile amx_int8"


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """Four cores without SMT, 32 GiB, nothing wrong."""
    machine = FakeMachine(tmp_path)
    machine.memory(total=32 * GIB, available=24 * GIB)
    machine.cores([[0], [1], [2], [3]])
    machine.write(f"{CPU}/online", "0-3")
    return machine


def host(machine: FakeMachine, cpus: Iterable[int] = range(4), pause: Callable[[float], None] = time.sleep) -> Host:
    return Host(machine.root, frozenset(cpus), pause)


def only(findings: Iterable[Finding]) -> Finding:
    """The one finding that is not ok."""
    (found,) = [finding for finding in findings if finding.level is not Level.OK]
    return found


def all_well(findings: Iterable[Finding]) -> bool:
    found = list(findings)
    return bool(found) and all(finding.level is Level.OK for finding in found)


def chip(machine: FakeMachine, flags: str, *, vendor: str = "GenuineIntel", family: int = 6, model: int = 143) -> None:
    fields = {"vendor_id": vendor, "cpu family": family, "model": model, "model name": "A Chip", "flags": flags}
    block = "\n".join(f"{name}\t: {value}" for name, value in fields.items())
    machine.write("/proc/cpuinfo", f"{block}\n\n{block}")


# --- findings, and how checks run


@pytest.mark.parametrize("make", [note, warning, problem])
def test_a_finding_without_a_reason_or_a_remedy_cannot_be_made(make):
    with pytest.raises(AssertionError, match="no reason or no remedy"):
        make("it is slow", why="", fix="make it fast")
    with pytest.raises(AssertionError, match="no reason or no remedy"):
        make("it is slow", why="it is old", fix="")


def test_a_check_that_raises_is_a_finding_and_the_others_go_on():
    def broken() -> Iterable[Finding]:
        yield ok("so far")
        raise ZeroDivisionError("by what?")

    checks = [Check("a", "broken", broken), Check("b", "sound", lambda: [ok("well")])]
    first, failed, last = examine(checks)
    assert (first.finding.what, last.finding.what) == ("so far", "well")
    assert failed.finding.level is Level.WARNING
    assert "ZeroDivisionError: by what?" in failed.finding.what


def test_a_check_that_hangs_is_a_finding_and_the_others_go_on():
    checks = [Check("a", "stuck", lambda: time.sleep(60) or [], 0.05), Check("b", "sound", lambda: [ok("well")])]
    stuck, last = examine(checks)
    assert "did not finish" in stuck.finding.what
    assert last.finding.what == "well"


def test_on_an_empty_root_no_check_fails(tmp_path):
    """The kernel may withhold any of its files."""
    results = list(examine(machine_checks(Host(tmp_path, frozenset({0}), lambda _: None), Intentions(port=0))))
    assert len({result.check for result in results}) == len(machine_checks(Host(), Intentions()))
    assert not [result for result in results if "failed" in result.finding.what]


# --- processor


@pytest.mark.parametrize(
    ("flags", "model", "usable", "level", "says"),
    [
        (AMX, 143, BEST, "ok", "AMX kernels"),
        (AVX2, 60, BEST[3:], "ok", "AVX2 kernels"),
        (f"{AVX512} hypervisor", 207, BEST[1:], "warning", "the virtual machine hides it"),
        (AVX512, 143, BEST[1:], "warning", "the kernel or the firmware hides it"),
        (f"{AVX2} hypervisor", 106, BEST[3:], "warning", "has AVX-512 VNNI"),
        (AMX, 143, BEST[1:], "warning", "this process may not use it"),
        ("sse4_2 hypervisor", 60, BEST[4:], "problem", "neither AVX2 nor FMA"),
    ],
)
def test_which_kernels_are_used_and_what_hides_better_ones(machine, flags, model, usable, level, says):
    chip(machine, flags, model=model)
    (found,) = processor.instruction_sets(host(machine), usable)
    assert found.level == level
    assert says in found.what


def test_a_zen_4_without_avx_512_is_not_what_it_should_be(machine):
    chip(machine, f"{AVX2} hypervisor", vendor="AuthenticAMD", family=25, model=0x11)
    assert "has AVX-512 VNNI" in only(processor.instruction_sets(host(machine), BEST[3:])).what
    chip(machine, f"{AVX2} hypervisor", vendor="AuthenticAMD", family=25, model=0x21)  # Zen 3 has none
    assert all_well(processor.instruction_sets(host(machine), BEST[3:]))


def test_threads_beyond_the_cpu_quota_are_a_problem(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, cpu_max="100000 100000")
    found = [finding for finding in processor.cores(host(machine), threads=4) if finding.level is Level.PROBLEM]
    assert "--threads 4 is more than this process may use (the control group allows 1 CPUs)" in only(found).what
    assert "100 %" in only(found).why
    assert not [f for f in processor.cores(host(machine)) if f.level in (Level.PROBLEM, Level.WARNING)]


def test_threads_beyond_the_cores_are_told(machine):
    machine.cores([[0, 1], [2, 3]])
    assert only(processor.cores(host(machine), threads=4)).level is Level.WARNING  # a thread for each sibling
    assert only(processor.cores(host(machine), threads=5)).level is Level.PROBLEM
    assert all_well(processor.cores(host(machine)))


def test_a_fraction_of_a_cpu_is_a_warning(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, cpu_max="50000 100000")
    found = only(processor.cores(host(machine)))
    assert (found.level, found.what) == (Level.WARNING, "control group / allows 0.5 CPUs of 4 cores")


def test_a_restricted_affinity_and_throttling_are_told(machine):
    assert "2 of 4 logical CPUs" in only(processor.cores(host(machine, [0, 1]))).what
    machine.member("0::/")
    machine.mount(CGROUP)
    stat = {"nr_periods": 1000, "nr_throttled": 300, "throttled_usec": 5_000_000}
    machine.group(CGROUP, cpu_max="400000 100000", cpu_stat=stat)
    assert "in 30% of its periods" in only(processor.cores(host(machine))).what


def test_mixed_cores_are_told(machine):
    assert all_well(processor.mixed_cores(host(machine)))
    machine.write("/sys/devices/cpu_core/cpus", "0-1")
    machine.write("/sys/devices/cpu_atom/cpus", "2-3")
    assert "taskset --cpu-list 0,1 " in only(processor.mixed_cores(host(machine))).fix


def test_frequency(machine):
    policy = f"{CPU}/cpu0/cpufreq"
    assert all_well(processor.frequency(host(machine)))
    machine.write(f"{policy}/scaling_governor", "powersave")
    machine.write(f"{policy}/scaling_driver", "intel_pstate")  # whose powersave is dynamic
    assert all_well(processor.frequency(host(machine)))
    machine.write(f"{policy}/scaling_driver", "acpi-cpufreq")
    assert only(processor.frequency(host(machine))).what == "frequency governor powersave"
    machine.write(f"{policy}/scaling_governor", "performance")
    machine.write(f"{CPU}/intel_pstate/no_turbo", 1)
    assert only(processor.frequency(host(machine))).what == "turbo is switched off"
    machine.write(f"{CPU}/intel_pstate/no_turbo", 0)
    machine.write(f"{policy}/scaling_max_freq", 1_200_000)
    machine.write(f"{policy}/cpuinfo_max_freq", 3_000_000)
    assert "1 CPUs may not reach" in only(processor.frequency(host(machine))).what
    machine.write(f"{policy}/scaling_max_freq", 3_000_000)
    machine.write(f"{CPU}/cpu0/thermal_throttle/package_throttle_count", 12)
    assert "slowed down 12 times" in only(processor.frequency(host(machine))).what


# --- what others do


def stat(idle: int, user: int, steal: int = 0) -> str:
    return f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0"


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (stat(1090, 1010), None),
        (stat(1060, 1020, 20), "other virtual machines take 20%"),
        (stat(1020, 1080), "80% busy now: hungry (7) 70%"),
    ],
)
def test_time_that_others_take(machine, after, says):
    def process(ticks: int) -> None:
        machine.write("/proc/7/stat", f"7 (hungry) R 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 1 0 0")

    def later(_seconds: float) -> None:
        machine.write("/proc/stat", after)
        process(500 + 70)

    machine.write("/proc/stat", stat(1000, 1000))
    process(500)
    found = list(activity.load(host(machine, pause=later)))
    assert all_well(found) if says is None else says in only(found).what


def test_swapping_is_seen_while_it_happens(machine):
    machine.write("/proc/vmstat", "pswpin 10\npswpout 5")
    later = lambda _: machine.write("/proc/vmstat", "pswpin 30\npswpout 5")  # noqa: E731
    assert "swapping: 20 pages" in only(activity.load(host(machine, pause=later))).what


# --- memory


def test_a_small_control_group_is_a_problem(machine):
    machine.member("0::/")
    machine.mount(CGROUP)
    machine.group(CGROUP, memory_max=128 << 20, memory_current=64 << 20, memory_events={"oom_kill": 0})
    found = only(memory.free_memory(host(machine)))
    assert (found.level, found.what) == (
        Level.PROBLEM,
        "64 MiB of 128 MiB memory are free, limited by control group /",
    )


@pytest.mark.parametrize("version", [1, 2])
def test_processes_that_the_kernel_killed_are_told(machine, version):
    if version == 2:
        machine.member("0::/")
        machine.mount(CGROUP)
        machine.group(CGROUP, memory_events={"oom": 3, "oom_kill": 3})
    else:
        machine.member("4:memory:/")
        machine.mount(f"{CGROUP}/memory", controllers="memory")
        machine.group(f"{CGROUP}/memory", memory_oom_control={"under_oom": 0, "oom_kill": 3})
    assert "has killed 3 processes of this control group" in only(memory.free_memory(host(machine))).what


def test_swap_and_overcommit(machine):
    assert all_well(memory.swap(host(machine)))
    assert all_well(memory.overcommit(host(machine)))
    kib = {"MemTotal": 32 << 20, "MemAvailable": 24 << 20, "SwapTotal": 8 << 20, "SwapFree": 6 << 20}
    kib |= {"CommitLimit": 20 << 20, "Committed_AS": 18 << 20}
    machine.write("/proc/meminfo", "\n".join(f"{name}: {size} kB" for name, size in kib.items()))
    machine.write("/proc/sys/vm/overcommit_memory", 2)
    assert only(memory.swap(host(machine))).what == "2.0 GiB of 8.0 GiB swap are in use"
    assert "2.0 GiB can be allocated, although 24.0 GiB are free" in only(memory.overcommit(host(machine))).what


def test_who_is_killed_first(machine):
    machine.write("/proc/self/oom_score_adj", 0)
    assert all_well(memory.killed_first(host(machine)))
    machine.write("/proc/self/oom_score_adj", 1000)
    assert "oom_score_adj is 1000" in only(memory.killed_first(host(machine))).what


def test_a_limited_address_space(machine):
    assert all_well(memory.address_space(host(machine)))
    machine.write("/proc/self/limits", limits_file(**{"Max address space": (4 * GIB, None)}))
    assert "4.0 GiB, less than the 24.0 GiB" in only(memory.address_space(host(machine))).what


def test_numa(machine):
    assert all_well(memory.numa(host(machine)))
    machine.node(0, "0-1")
    machine.node(1, "2-3")
    assert all_well(memory.numa(host(machine)))
    machine.write("/proc/sys/vm/zone_reclaim_mode", 1)
    assert "zone_reclaim_mode" in only(memory.numa(host(machine))).what
    machine.write("/proc/sys/vm/zone_reclaim_mode", 0)
    machine.write("/proc/self/status", "Mems_allowed_list:\t1")
    assert only(memory.numa(host(machine, [0, 1]))).fix.startswith("numactl --cpunodebind=1 --membind=1")


def test_huge_pages(machine):
    machine.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    assert all_well(memory.huge_pages(host(machine)))
    machine.write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]")
    assert "switched off" in only(memory.huge_pages(host(machine))).what
    machine.write("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
    machine.write("/proc/meminfo", f"MemTotal: {32 << 20} kB\nHugepagesize: 2048 kB")
    machine.write("/proc/sys/vm/nr_hugepages", 4096)
    assert "8.0 GiB of memory are reserved" in only(memory.huge_pages(host(machine))).what


# --- limits


def limits_file(**values: tuple[int | None, int | None]) -> str:
    rows = {"Max open files": (20000, 20000), "Max processes": (None, None), **values}
    shown = {name: [("unlimited" if v is None else str(v)) for v in pair] for name, pair in rows.items()}
    head = f"{'Limit':<26}{'Soft Limit':<21}{'Hard Limit':<21}Units"
    return "\n".join([head, *(f"{name:<26}{soft:<21}{hard:<21}files" for name, (soft, hard) in shown.items())])


@given(st.dictionaries(st.sampled_from(["Max open files", "Max cpu time", "Max address space"]),
                       st.tuples(*[st.none() | st.integers(0, 2**63)] * 2)))  # fmt: skip
def test_limits_are_read_as_the_kernel_writes_them(values):
    read = parse_limits(limits_file(**values))
    assert {name: read[name] for name in values} == values


@given(st.text())
def test_no_text_breaks_a_parser(text):
    assert isinstance(parse_limits(text), dict)
    assert isinstance(storage.parse_mounts(text), list)


@pytest.mark.parametrize(
    ("soft", "hard", "level"),
    [(None, None, "ok"), (1024, None, "ok"), (1024, 4096, "ok"), (256, 256, "warning"), (32, 32, "problem")],
)
def test_open_files(machine, soft, hard, level):
    machine.write("/proc/self/limits", limits_file(**{"Max open files": (soft, hard)}))
    (found,) = limits.open_files(host(machine), 1000)
    assert found.level == level


def test_the_whole_machine_may_be_short_of_files(machine):
    machine.write("/proc/sys/fs/file-nr", "99900\t0\t100000")
    assert "99,900 of 100,000 files" in only(limits.open_files(host(machine), 1000)).what


@pytest.mark.parametrize("version", [1, 2])
def test_a_tight_limit_on_processes_is_a_problem(machine, version):
    machine.member("0::/" if version == 2 else "3:pids:/")
    folder = CGROUP if version == 2 else f"{CGROUP}/pids"
    machine.mount(folder, controllers="" if version == 2 else "pids")
    machine.group(folder, pids_max=20, pids_current=9)
    assert "control group / may have 20 processes" in only(limits.processes(host(machine))).what
    machine.group(folder, pids_max="max", pids_current=9)
    assert all_well(limits.processes(host(machine)))


def test_a_real_limit_on_open_files_is_found():
    """In a process of its own, which `ulimit` restricts as a shell would."""
    code = (
        "from antiphon.doctor.host import Host; from antiphon.doctor import limits\n"
        "print(*(f.what for f in limits.open_files(Host(), 1000)))"
    )
    command = f"ulimit -n 128 && exec {sys.executable} -c '{code}'"
    reply = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert reply.stdout == "at most 128 files may be open, so 64 connections are allowed instead of 1,000\n"


# --- network


def test_a_port_that_another_program_holds_is_found_with_its_process():
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        number = int(process.stdout.readline())
        found = only(network.port(Host(), "127.0.0.1", number))
        process.communicate("\n")
    assert found.level is Level.PROBLEM
    assert found.what == f"port {number} is taken by process {process.pid}: {Path(sys.executable).name}"
    assert found.fix.startswith(f"kill {process.pid} ")
    assert all_well(network.port(Host(), "127.0.0.1", number))


def test_an_antiphon_server_on_the_port_is_no_problem():
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code, "antiphon", "serve", "--api-key", "a-secret"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        found = only(network.port(Host(), "127.0.0.1", int(process.stdout.readline())))
        process.communicate("\n")
    assert found.level is Level.NOTE
    assert "a-secret" not in found.what


def test_a_held_port_of_nobody_that_can_be_seen_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as held:
        number = held.getsockname()[1]
        found = only(network.port(Host(tmp_path, frozenset({0})), "127.0.0.1", number))
    assert "a process that you may not see" in found.what


def test_an_address_of_another_machine():
    assert "not an address of this machine" in only(network.port(Host(), "192.0.2.1", 8000)).what


def test_listening_sockets_of_both_protocols_are_read(machine):
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    line = "   0: {address}:1F90 {zero}:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0"
    v4 = line.format(address="0100007F", zero="00000000", state="0A", inode=11)
    established = line.format(address="0100007F", zero="00000000", state="01", inode=12)
    v6 = line.format(address="0" * 32, zero="0" * 32, state="0A", inode=13)
    machine.write("/proc/net/tcp", "\n".join([head, v4, established]))
    machine.write("/proc/net/tcp6", "\n".join([head, v6]))
    assert network.listening_inodes(host(machine), 8080) == {"11", "13"}
    assert network.listening_inodes(host(machine), 8081) == set()


@pytest.mark.parametrize(
    ("environment", "well"),
    [
        ({}, True),
        ({"HTTP_PROXY": "http://proxy:3128"}, False),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "example.org"}, False),
        ({"http_proxy": "http://proxy:3128", "NO_PROXY": "localhost, 127.0.0.1"}, True),
    ],
)
def test_a_proxy_for_local_addresses_is_told(environment, well):
    assert all_well(network.proxies(environment)) is well


# --- disks


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", "ok"), ("overlay", "ok"), ("nfs4", "warning"), ("fuse.s3fs", "warning"), ("fuse.fuse-overlayfs", "ok")],
)
def test_a_model_on_a_network_file_system_is_told(machine, kind, level):
    lines = [
        "20 1 0:20 / / rw,relatime - ext4 /dev/sda1 rw",
        f"21 20 0:21 / /models\\040of\\040ours ro,relatime shared:1 - {kind} server:/export rw",
        "22 20 0:22 / /models rw - tmpfs tmpfs rw",
    ]
    machine.write("/proc/self/mountinfo", "\n".join(lines))
    (found,) = storage.file_system(Path("/models of ours/r1.gguf"), host(machine))
    assert found.level == level
    assert f"on {kind}, mounted at /models of ours" in found.what


def test_room_for_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    real = os.statvfs(tmp_path)
    fields = {"f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 100_000, "f_favail": 50_000, "f_flag": 0}

    def check(**changes: int) -> list[Finding]:
        state = type("state", (), {**fields, **changes})
        monkeypatch.setattr("antiphon.doctor.storage.os.statvfs", lambda _path: state)
        return list(storage.room_for_downloads({"HF_HOME": str(tmp_path / "not" / "yet")}))

    assert real.f_frsize
    assert all_well(check(f_bavail=4 << 20))
    assert ["4.0 GiB are free" in finding.what for finding in check()] == [True, True]
    assert ["10 more files" in finding.what for finding in check(f_favail=10)] == [True, True]
    assert ["cannot be written" in finding.what for finding in check(f_flag=os.ST_RDONLY)] == [True, True]


def test_temporary_files(tmp_path, monkeypatch):
    assert all_well(storage.temporary_files({"TMPDIR": str(tmp_path)}))
    monkeypatch.setattr("antiphon.doctor.storage.os.access", lambda *_: False)
    assert "no folder for temporary files" in only(storage.temporary_files({})).what


def test_the_disk_is_measured_by_a_few_direct_reads_of_the_file(tmp_path):
    small = tmp_path / "small"
    small.write_bytes(b"x" * 1000)
    assert storage.read_rate(small) is None
    large = tmp_path / "large"
    large.write_bytes(bytes(64 << 20))
    rate = storage.read_rate(large)  # None: this file system has no direct reads
    assert rate is None or rate > 0
    assert len(list(storage.reading_speed(large))) == 1


# --- software and surroundings


def test_a_misspelt_variable_is_told_with_the_right_one():
    known = {"ANTIPHON_KV_CACHE_TOKENS", "ANTIPHON_PORT"}
    found = only(software.variables({"ANTIPHON_KV_CACHE_TOKEN": "4096", "ANTIPHON_PORT": "80", "HOME": "/"}, known))
    assert found.what == "the environment variable ANTIPHON_KV_CACHE_TOKEN is not a setting of Antiphon"
    assert "Did you mean ANTIPHON_KV_CACHE_TOKENS?" in found.why
    assert all_well(software.variables({"ANTIPHON_PORT": "80"}, known))


def test_packages_that_are_too_old_or_missing_are_a_problem(monkeypatch):
    assert all_well(software.packages())
    needed = ["rich>=999", "nonesuch-of-that-name>=1", "only-elsewhere; sys_platform == 'win32'", "typer>=0.1"]
    monkeypatch.setattr("antiphon.doctor.software.requires", lambda _name: needed)
    what = only(software.packages()).what
    assert re.fullmatch(r"rich is [\d.]+, needs >=999; nonesuch-of-that-name is missing, needs >=1", what)


def test_a_native_library_that_cannot_be_loaded_is_a_problem(monkeypatch):
    assert all_well(software.native_library())
    monkeypatch.setitem(sys.modules, "antiphon.ops.native", None)
    assert "cannot be loaded" in only(software.native_library()).what


def test_kernels_that_compute_other_bits_are_a_problem(monkeypatch):
    assert all_well(software.arithmetic())
    wrong = {"avx2": EXPECTED, "scalar": "0" * 16}
    monkeypatch.setattr("antiphon.runtime.cpu.fingerprints", lambda: wrong)
    finding = only(software.arithmetic())
    assert finding.level is Level.PROBLEM
    assert "scalar computes other bits (0000000000000000)" in finding.what
    assert "avx2" not in finding.what


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("/.dockerenv", "", "Docker"),
        ("/run/.containerenv", "", "Podman"),
        ("/proc/self/cgroup", "0::/kubepods/burstable/pod1", "Kubernetes"),
        ("/proc/1/environ", "PATH=/bin\0container=lxc\0", "lxc"),
    ],
)
def test_containers_are_known_by_what_they_leave(machine, path, text, kind):
    assert all_well(surroundings.container(host(machine), user=0))
    machine.write(path, text)
    assert "runs as root" in only(surroundings.container(host(machine), user=0)).what
    (found,) = surroundings.container(host(machine), user=1000)
    assert f"in a container ({kind})" in found.what


def test_the_clock(machine):
    def check(**settings: Callable[[], object]) -> list[Finding]:
        settings = {"synchronized": lambda: True, **settings}
        return list(surroundings.clock(host(machine), **settings))

    assert all_well(check())
    assert "says 1970-01-01" in only(check(now=lambda: 3600.0)).what
    assert "not synchronized" in only(check(synchronized=lambda: False)).what
    assert all_well(check(synchronized=lambda: None))
    machine.write("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")
    assert "clock source is hpet" in only(check()).what


def test_the_kernel_is_asked_whether_its_clock_is_synchronized():
    assert surroundings.is_synchronized() in (True, False, None)

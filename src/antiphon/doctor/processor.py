"""Checks of the processor: instruction sets, cores against limits, kinds of cores, frequency.

Sources: the kernel's Documentation/admin-guide/pm (cpufreq.rst, intel_pstate.rst), arch/x86/include/asm/intel-family.h
for models, and Documentation/arch/x86/xstate.rst for AMX's permission.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from antiphon.config import MAX_THREADS
from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.host import Host
from antiphon.machine import choose_threads
from antiphon.machine.control_groups import cpu_throttling
from antiphon.machine.kernel_files import number_list

# Each instruction set, best first, and the flags that the kernel shows in /proc/cpuinfo if it can be used.
FLAGS: Mapping[str, frozenset[str]] = {
    "amx": frozenset({"amx_tile", "amx_int8", "avx512_vnni"}),
    "avx512": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}),
    "avxvnni": frozenset({"avx2", "fma", "f16c", "avx_vnni"}),
    "avx2": frozenset({"avx2", "fma", "f16c"}),
}
_NAMES = {"amx": "AMX", "avx512": "AVX-512 VNNI", "avxvnni": "AVX-VNNI", "avx2": "AVX2", "scalar": "no vector"}
_INTEL, _AMD = "GenuineIntel", "AuthenticAMD"
_INTEL_AMX = {143, 173, 174, 207}  # Sapphire Rapids, Granite Rapids, Granite Rapids D, Emerald Rapids
_INTEL_AVX512 = {106, 108, *_INTEL_AMX}  # also Ice Lake servers
_ZEN4 = {*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)}  # of family 25
_MUCH_THROTTLED = 0.05  # of the periods
_ENOUGH_PERIODS = 100


@dataclass(frozen=True, slots=True)
class Chip:
    """The first processor of /proc/cpuinfo."""

    name: str
    vendor: str
    family: int
    model: int
    flags: frozenset[str]

    @property
    def is_virtual(self) -> bool:
        return "hypervisor" in self.flags

    @property
    def should_have(self) -> str:
        """The best instruction set that this model has by its data sheet; empty if that is not known here."""
        if self.vendor == _INTEL and self.family == 6 and self.model in _INTEL_AMX:
            return "amx"
        if self.vendor == _INTEL and self.family == 6 and self.model in _INTEL_AVX512:
            return "avx512"
        if self.vendor == _AMD and (self.family >= 26 or (self.family == 25 and self.model in _ZEN4)):
            return "avx512"
        return ""


def see_chip(host: Host) -> Chip:
    """Read /proc/cpuinfo; what it does not say is empty or 0."""
    first = host.text("/proc/cpuinfo").split("\n\n")[0]
    fields = dict(re.findall(r"^(.+?)\s*: ?(.*)$", first, re.MULTILINE))
    family, model = (fields.get(name, "") for name in ("cpu family", "model"))
    return Chip(
        name=fields.get("model name", "unknown processor"),
        vendor=fields.get("vendor_id", ""),
        family=int(family) if family.isdecimal() else 0,
        model=int(model) if model.isdecimal() else 0,
        flags=frozenset(fields.get("flags", "").split()),
    )


def instruction_sets(host: Host, usable: Sequence[str] | None = None) -> Iterator[Finding]:
    """Which kernels will be used, and whether better ones are hidden. `usable`: best first; None: ask the library."""
    if usable is None:
        from antiphon.ops.native import instruction_sets as supported

        usable = supported()
    chip, best = see_chip(host), usable[0]
    order = [*FLAGS, "scalar"]
    shown = next((name for name, flags in FLAGS.items() if flags <= chip.flags), "scalar")
    expected = chip.should_have or shown
    if order.index(shown) < order.index(best):
        yield _withheld(shown, best)
    elif order.index(expected) < order.index(best):
        yield _hidden(chip, expected, best)
    elif best == "scalar":
        yield _no_vectors(chip)
    else:
        yield ok(f"{chip.name}: {_NAMES[best]} kernels")


def _withheld(shown: str, best: str) -> Finding:
    return warning(
        f"the kernel shows {_NAMES[shown]}, but this process may not use it; {_NAMES[best]} kernels are used",
        why="A sandbox or an old seccomp profile refuses the system call arch_prctl. Prompts are computed more slowly.",
        fix="docker run --security-opt seccomp=unconfined …  # to try; then allow arch_prctl in the profile",
    )


def _hidden(chip: Chip, expected: str, best: str) -> Finding:
    if chip.is_virtual:
        fix = "virsh edit VM  # <cpu mode='host-passthrough'/>; QEMU: -cpu host; Proxmox: qm set ID --cpu host"
    else:
        fix = "uname -r; cat /proc/cmdline  # AMX needs Linux 5.16; look for clearcpuid= and noxsave"
    place = "the virtual machine hides it" if chip.is_virtual else "the kernel or the firmware hides it"
    return warning(
        f"{chip.name} has {_NAMES[expected]}, but {place}; {_NAMES[best]} kernels are used",
        why="Each step of the better instruction set multiplies several times as many numbers.",
        fix=fix,
    )


def _no_vectors(chip: Chip) -> Finding:
    return problem(
        f"{chip.name} shows neither AVX2 nor FMA and F16C, so kernels without vectors are used",
        why="They are meant for tests and are many times slower. The usual reason is a virtual machine with a default "
        "CPU model.",
        fix="virsh edit VM  # <cpu mode='host-passthrough'/>; QEMU: -cpu host; Proxmox: qm set ID --cpu host",
    )


def cores(host: Host, threads: int = 0) -> Iterator[Finding]:
    """Cores against the CPU quota, the affinity and SMT; `threads` as in `antiphon serve --threads`."""
    processors = host.processors
    choice, quota = choose_threads(processors, threads), processors.quota
    logical, physical = len(processors.cpus), processors.num_cores
    room = min(logical, quota.cpus) if quota else logical
    used = f"{choice.threads} {'thread' if choice.threads == 1 else 'threads'} ({choice.reason})"
    have = f"{physical} {'core' if physical == 1 else 'cores'}, {logical} logical CPUs"
    if threads > min(room, MAX_THREADS):
        allowed = f"the control group allows {quota.cpus:.3g} CPUs" if quota and quota.cpus < logical else have
        yield problem(
            f"--threads {threads} is more than this process may use ({allowed})",
            why="At the end of each operation all threads wait for the slowest. A thread without a CPU of its own "
            "waits for the others to pause, so the processor is at 100 % and answers are slow.",
            fix="unset ANTIPHON_THREADS  # and leave out --threads: one thread for each core within the limit",
        )
    elif threads > physical:
        yield warning(
            f"--threads {threads} is more than the {physical} physical cores",
            why="Two threads on one core share its vector units, which one thread keeps busy. Both become slower.",
            fix=f"antiphon serve MODEL --threads {physical}  # or leave out --threads",
        )
    else:
        yield ok(f"{used} on {have}")
    if logical > physical and not threads:
        yield ok(f"SMT: {logical / physical:.2g} logical CPUs on each core, of which one is used")
    yield from _limits(host, threads)


def _limits(host: Host, threads: int) -> Iterator[Finding]:
    processors = host.processors
    quota, online = processors.quota, number_list(host.text("/sys/devices/system/cpu/online"))
    if quota and quota.cpus < processors.num_cores:
        finding = warning if quota.cpus < 1 else note
        yield finding(
            f"control group {quota.group} allows {quota.cpus:.3g} CPUs of {processors.num_cores} cores",
            why="Once they are used up, the kernel stops all threads until the next period."
            if quota.cpus % 1 or threads
            else "The other cores are not used.",
            fix=f"docker update --cpus {processors.num_cores} CONTAINER  # systemd: "
            f"systemctl set-property UNIT CPUQuota={processors.num_cores}00%; Kubernetes: resources.limits.cpu",
        )
    if len(online) > len(processors.cpus):
        yield note(
            f"this process may use {len(processors.cpus)} of {len(online)} logical CPUs",
            why="taskset, numactl or the container's cpuset restricts it.",
            fix=f"taskset --all-tasks --pid --cpu-list 0-{max(online)} PID  # of the shell; containers: --cpuset-cpus",
        )
    throttling = cpu_throttling(host.root)
    if throttling and throttling.periods >= _ENOUGH_PERIODS:
        share = throttling.throttled_periods / throttling.periods
        if share >= _MUCH_THROTTLED:
            yield warning(
                f"control group {throttling.quota.group} used up its CPU quota in {share:.0%} of its periods so far",
                why=f"Its processes stood still for {throttling.seconds:.0f} s of CPU time. Answers stall meanwhile.",
                fix="docker update --cpus N CONTAINER  # a higher limit; or fewer threads: --threads",
            )


def mixed_cores(host: Host) -> Iterator[Finding]:
    """Whether fast and slow cores compute together."""
    fast = number_list(host.text("/sys/devices/cpu_core/cpus")) & host.affinity
    slow = number_list(host.text("/sys/devices/cpu_atom/cpus")) & host.affinity
    if not (fast and slow):
        yield ok("all cores are of one kind")
        return
    cpus = ",".join(map(str, sorted(fast)))
    yield note(
        f"{len(fast)} logical CPUs are on performance cores, {len(slow)} on efficiency cores",
        why="All threads wait for the slowest at the end of each operation, so slow cores may slow the fast ones down.",
        fix=f"taskset --cpu-list {cpus} antiphon serve MODEL  # and compare the speed",
    )


def frequency(host: Host) -> Iterator[Finding]:
    """The frequency governor, turbo, and how often the processor was too hot."""
    folder = "/sys/devices/system/cpu"
    policies = {cpu: f"{folder}/cpu{cpu}/cpufreq" for cpu in sorted(host.affinity)}
    governors = {text for path in policies.values() if (text := host.text(f"{path}/scaling_governor"))}
    driver = next((text for path in policies.values() if (text := host.text(f"{path}/scaling_driver"))), "")
    # Drivers that choose the frequency themselves call their dynamic policy "powersave".
    is_dynamic = driver in ("intel_pstate", "amd-pstate-epp")
    slow = {"powersave", "userspace"} & governors - ({"powersave"} if is_dynamic else set())
    if slow:
        yield warning(
            f"frequency governor {', '.join(sorted(slow))}",
            why="The cores stay at a low or fixed frequency, however much there is to compute.",
            fix="sudo cpupower frequency-set --governor performance",
        )
    else:
        yield ok(f"frequency governor {', '.join(sorted(governors))}" if governors else "the host sets the frequency")
    if host.number(f"{folder}/intel_pstate/no_turbo") == 1:
        yield _no_turbo(f"echo 0 | sudo tee {folder}/intel_pstate/no_turbo")
    elif host.number(f"{folder}/cpufreq/boost") == 0:
        yield _no_turbo(f"echo 1 | sudo tee {folder}/cpufreq/boost")
    capped = [cpu for cpu, path in policies.items() if _is_capped(host, path)]
    if capped:
        yield warning(
            f"{len(capped)} CPUs may not reach their highest frequency",
            why="Somebody has lowered their limit, so everything that is computed takes longer.",
            fix="sudo cpupower frequency-set --max "
            f"{host.number(policies[capped[0]] + '/cpuinfo_max_freq')}  # kHz; see also the laptop's power profile",
        )
    hot = max(
        (host.number(f"{folder}/cpu{cpu}/thermal_throttle/package_throttle_count") or 0 for cpu in policies), default=0
    )
    if hot:
        yield note(
            f"the processor was slowed down {hot:,} times because of its temperature since boot",
            why="It computes more slowly while it is too hot.",
            fix="sensors; journalctl -k | grep -i 'throttled'  # look at fans, dust and power limits",
        )


def _no_turbo(fix: str) -> Finding:
    return note("turbo is switched off", why="Cores stay at their base frequency when they could run faster.", fix=fix)


def _is_capped(host: Host, policy: str) -> bool:
    allowed, highest = (host.number(f"{policy}/{name}") for name in ("scaling_max_freq", "cpuinfo_max_freq"))
    return allowed is not None and highest is not None and allowed < 0.95 * highest

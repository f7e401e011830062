"""The NVIDIA GPUs of this machine, as `nvidia-smi` lists them, and which devices engines use.

`nvidia-smi` comes with the driver, so nothing has to be installed or loaded to ask. Numbers are CUDA's: those of the
GPUs that CUDA_VISIBLE_DEVICES leaves, in the order of their PCI addresses or as listed there. Owns every reason why a
device cannot be used that can be known before an engine starts.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace

from antiphon.errors import ConfigError
from antiphon.machine.gpu_usage import instance_memory

LEAST_CAPABILITY = (8, 0)  # the first with the int8 tensor instructions that the kernels are compiled to
_QUERY = "name,compute_cap,memory.total,memory.free,driver_version,uuid"
_TIMEOUT = 20.0  # seconds; a GPU that nobody used for a while takes some to answer


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU; memory in bytes."""

    name: str
    capability: tuple[int, int]
    total: int
    free: int
    driver: str
    uuid: str = ""


def see_gpus() -> list[Gpu]:
    """The GPUs that CUDA shows, in the order of their numbers; none where there is no driver, or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = [_parsed(line) for line in listed.stdout.splitlines()]
    return [gpu for gpu in _visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES")) if gpu is not None]


def _visible(gpus: Sequence[Gpu | None], visible: str | None) -> list[Gpu | None]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves: all if it is not set, else up to the first item that is none.

    An item is a number or the beginning of a UUID (CUDA C++ Programming Guide, "CUDA Environment Variables").
    """
    if visible is None:
        return list(gpus)
    found: list[Gpu | None] = []
    for item in (part.strip() for part in visible.split(",")):
        if item.isascii() and item.isdigit():
            matching = list(gpus[int(item) : int(item) + 1])
        elif item.startswith("MIG-"):  # nvidia-smi does not say of which card the instance is; cards are mostly alike
            matching = [_instance(card, item) for card in gpus[:1]]
        else:
            matching = [gpu for gpu in gpus if item and gpu is not None and gpu.uuid.startswith(item)]
        if len(matching) != 1:
            break
        found += matching
    return found


def _instance(card: Gpu | None, uuid: str) -> Gpu | None:
    """A MIG instance of this card, with its own memory if NVML reports it."""
    memory = instance_memory(uuid) if card is not None else None
    return replace(card, total=memory[0], free=memory[1]) if card is not None and memory is not None else card


def _parsed(line: str) -> Gpu | None:
    try:
        name, capability, total, free, driver, uuid = (part.strip() for part in line.split(","))
        major, minor = capability.split(".")
        return Gpu(name, (int(major), int(minor)), int(total) << 20, int(free) << 20, driver, uuid)
    except ValueError:  # "[N/A]", or what a driver of another time writes
        return None


def choose_devices(
    requested: str, engines: int = 0, named: Sequence[str] = (), gpus: Sequence[Gpu] | None = None
) -> tuple[str, ...]:
    """The device of each engine on this machine: "cpu", "interpreter" or "cuda:N".

    `requested` is --device, `engines` the number of engines on it, 0 if none was given; `named` are the devices that
    --engines names beside it. `gpus`: those there are; None: looks. Where neither number nor devices are given, there
    is one engine for each GPU that can be used, and one for another device. "auto" is "cuda" if that can be used, else
    "cpu".

    Raises ConfigError, saying what to do, where a device that was asked for cannot be used.
    """
    if gpus is None:
        gpus = see_gpus() if any(each.startswith(("auto", "cuda")) for each in (requested, *named)) else []
    usable = [f"cuda:{number}" for number, gpu in enumerate(gpus) if gpu.capability >= LEAST_CAPABILITY]
    if requested == "auto":
        requested = "cuda" if usable and not _missing_packages() else "cpu"
    devices: list[str] = []
    if engines or not named:
        if requested == "cuda":
            _check_device(requested, gpus)
            devices += usable[: engines or None]
        else:
            devices += [requested] * (engines or 1)
        if len(devices) < engines:
            raise ConfigError(
                f"--engines is {engines}, and there are {len(usable)} GPUs that can be used; each engine needs its own"
            )
    for each in named:
        if each == "cuda":
            _check_device(each, gpus)
            devices += [device for device in usable if device not in (*devices, *named)]
        else:
            devices.append(each)
    for each in dict.fromkeys(devices):
        _check_device(each, gpus)
        if each.startswith("cuda") and devices.count(each) > 1:
            raise ConfigError(f"{each} has {devices.count(each)} engines; an engine needs a GPU of its own")
    return tuple(devices)


def choose_device(requested: str, gpus: Sequence[Gpu] | None = None) -> str:
    """The device of one engine; otherwise as `choose_devices`."""
    return choose_devices(requested, gpus=gpus)[0]


def _check_device(requested: str, gpus: Sequence[Gpu]) -> None:
    """Raise ConfigError, saying what to do, if this device cannot be used; "cuda": if no GPU can."""
    if requested == "cpu":
        return
    if requested.startswith("cuda"):
        _check_gpu(requested, gpus)
    if missing := _missing_packages():
        raise ConfigError(f"device {requested} needs {' and '.join(missing)}: pip install 'antiphon[gpu]'")


def _check_gpu(requested: str, gpus: Sequence[Gpu]) -> None:
    if not gpus:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise ConfigError(
            f"device {requested}: there is no NVIDIA GPU, or its driver is not installed (nvidia-smi lists none"
            + (f" that CUDA_VISIBLE_DEVICES={hidden[:100]!r} leaves" if hidden is not None else "")
            + "); in a container, start it with --gpus all; or use --device cpu"
        )
    number = requested.partition(":")[2]
    if number and int(number) >= len(gpus):
        names = ", ".join(f"cuda:{i} ({gpu.name})" for i, gpu in enumerate(gpus))
        raise ConfigError(f"device {requested}: there is no such GPU; there is {names}")
    chosen = dict(enumerate(gpus)) if not number else {int(number): gpus[int(number)]}
    if all(gpu.capability < LEAST_CAPABILITY for gpu in chosen.values()):
        which = "; ".join(
            f"the {gpu.name} (cuda:{i}) has compute capability {gpu.capability[0]}.{gpu.capability[1]}"
            for i, gpu in chosen.items()
        )
        raise ConfigError(
            f"device {requested}: {which}; 8.0 or later is needed (A100, RTX 30 or newer); "
            "use another GPU or --device cpu"
        )


def _missing_packages() -> list[str]:
    return [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]


def gpu_memory(device: str, gpus: Sequence[Gpu] | None = None) -> int:
    """Bytes that are free on the device "cuda:N" that `choose_devices` chose; 0 if it is gone."""
    gpus = see_gpus() if gpus is None else gpus
    number = int(device.partition(":")[2])
    return gpus[number].free if number < len(gpus) else 0

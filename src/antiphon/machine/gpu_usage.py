"""What the NVIDIA driver reports about a GPU: memory, load, temperature, power. Nothing here raises.

Uses NVIDIA's management library (NVML) through the package nvidia-ml-py, which comes with `antiphon[gpu]`. A value is
None where the package, the driver or the value is missing: under WSL some values, and of a MIG instance, all that NVML
reports only for the whole GPU. A call may block while a GPU fails, so the front makes it in a thread.

Source: NVML API Reference Manual, device queries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from types import ModuleType
from typing import TypeVar

_RETRY_AFTER = 60.0  # seconds, when the library could not be loaded
_PREFIXES = ("GPU-", "MIG-")  # of UUIDs: a whole GPU, and an instance of one

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """The state of one GPU; None: not known."""

    used: int | None = None  # bytes, by all processes
    total: int | None = None  # bytes
    utilization: float | None = None  # share of the last sampling period in which a kernel ran, 0 to 1
    temperature: float | None = None  # °C
    temperature_limit: float | None = None  # °C at which the GPU slows down
    power: float | None = None  # watts
    power_limit: float | None = None  # watts


class Nvml:
    """The management library; it is loaded at the first question. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds and never goes back."""
        self._lock = Lock()
        self._clock = clock
        self._library: ModuleType | None = None  # pynvml, once it is initialized
        self._retry_at = 0.0

    def usage(self, uuid: str) -> GpuUsage:
        """The state of a GPU, or of a MIG instance, by its UUID without a prefix."""
        with self._lock:
            library = self._loaded()
            if library is None:
                return GpuUsage()
            device = _find(library, uuid)
            return GpuUsage() if device is None else _usage(library, device)

    def _loaded(self) -> ModuleType | None:
        if self._library is None and self._clock() >= self._retry_at:
            self._retry_at = self._clock() + _RETRY_AFTER
            self._library = _load()
        return self._library


def _load() -> ModuleType | None:
    """The package with the library initialized; None if one of the two is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no library, no driver, or two that do not fit
        return None
    library: ModuleType = pynvml
    return library


def instance_memory(uuid: str) -> tuple[int, int] | None:
    """Bytes that a MIG instance has, and that are free, by its UUID as CUDA_VISIBLE_DEVICES has it; None: not known."""
    if (library := _load()) is None:
        return None
    instance = _ask(library, library.nvmlDeviceGetHandleByUUID, uuid)
    memory = None if instance is None else _ask(library, library.nvmlDeviceGetMemoryInfo, instance)
    return None if memory is None else (int(memory.total), int(memory.free))


def _find(library: ModuleType, uuid: str) -> object | None:
    for prefix in _PREFIXES:
        device: object | None = _ask(library, library.nvmlDeviceGetHandleByUUID, prefix + uuid)
        if device is not None:
            return device
    return None


def _usage(library: ModuleType, device: object) -> GpuUsage:
    is_instance = bool(_ask(library, library.nvmlDeviceIsMigDeviceHandle, device))
    card = _ask(library, library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, device) if is_instance else device
    if card is None:
        return GpuUsage()
    mode = _ask(library, library.nvmlDeviceGetMigMode, card)  # now, and after the next reset
    # A card that is divided reports the memory of all its instances, and no load.
    memory = load = None
    if not (mode and mode[0]):
        memory = _ask(library, library.nvmlDeviceGetMemoryInfo, card)
        load = _ask(library, library.nvmlDeviceGetUtilizationRates, card)
    return GpuUsage(
        used=memory and int(memory.used),
        total=memory and int(memory.total),
        utilization=load and load.gpu / 100,
        temperature=_ask(library, library.nvmlDeviceGetTemperature, card, library.NVML_TEMPERATURE_GPU),
        temperature_limit=_ask(
            library, library.nvmlDeviceGetTemperatureThreshold, card, library.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        ),
        power=_watts(_ask(library, library.nvmlDeviceGetPowerUsage, card)),
        power_limit=_watts(_ask(library, library.nvmlDeviceGetEnforcedPowerLimit, card)),
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _ask(library: ModuleType, question: Callable[..., T], *arguments: object) -> T | None:
    """An answer; None if the driver has none."""
    try:
        return question(*arguments)
    except library.NVMLError:
        return None

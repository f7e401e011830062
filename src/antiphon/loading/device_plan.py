"""One memory plan for engines on several devices, so that each can continue the answers of another.

Owns how the plans of single devices become one: all engines have the same precision of weights, and the KV cache for
which there is room on the smallest device. Owns also what an engine would take on a device of either kind, so that one
can be added there, or on another machine, without opening the model again.
"""

from __future__ import annotations

from dataclasses import replace

from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.gpu_footprint import HOST_BYTES
from antiphon.machine.gpu import gpu_memory
from antiphon.memory_plan import MemoryPlan, plan_memory

_NO_LIMIT = 1 << 62  # bytes

Room = tuple[EngineConfig, int]  # the settings of engines that share memory, and its bytes


def plan_devices(
    checkpoint: Checkpoint, engine: EngineConfig, free: int, elsewhere: int | None
) -> tuple[MemoryPlan, EngineConfig]:
    """A plan for engines on `engine.devices`, and `engine` with it applied.

    The plan is that of the CPU if there are engines on it, else of the first GPU. `free`: bytes of this machine's
    memory; `elsewhere`: of the device of each engine on other machines; None: there are none, or it is not known.

    Raises:
        ConfigError: there is not enough memory on a device.
    """
    rooms = _rooms(engine, free, elsewhere)
    plans = [plan_memory(checkpoint, config, available) for config, available in rooms]
    for plan in plans:
        plan.applied_to(engine)  # raises what is wrong
    names = [plan.quantization.name for plan in plans]
    quantization = "w4" if "w4" in names else names[0] or engine.quantization
    tokens = min(plan.kv_cache_tokens for plan in plans)
    plans = [
        plan_memory(checkpoint, replace(config, quantization=quantization, kv_cache_tokens=tokens), available)
        for config, available in rooms
    ]
    planned = replace(plans[0].applied_to(engine), engines=engine.engines)
    on_gpu = [plan for plan in plans if plan.gpu is not None]
    if on_gpu:
        tightest = min(on_gpu, key=lambda plan: plan.engine_reserve).applied_to(engine)
        planned = replace(planned, memory_reserve=tightest.memory_reserve)
    return plans[0], planned


def with_sizes_anywhere(checkpoint: Checkpoint, planned: EngineConfig) -> EngineConfig:
    """The settings of a plan, with what an engine of these sizes takes on the CPU and on a GPU.

    What it takes on a GPU stays 0 if it cannot run on one.
    """
    alone = replace(planned, engines=1, devices=(), remote_engines=())
    on_cpu = plan_memory(checkpoint, replace(alone, device="cpu"), _NO_LIMIT)
    planned = replace(planned, memory_bytes=on_cpu.engine_bytes)
    if planned.kv_cache_type != "int8":
        return planned
    on_gpu = plan_memory(checkpoint, replace(alone, device="cuda"), _NO_LIMIT)
    if on_gpu.gpu is None:
        return planned
    return replace(planned, gpu_bytes=on_gpu.engine_bytes, host_bytes=on_gpu.host_bytes)


def _rooms(engine: EngineConfig, free: int, elsewhere: int | None) -> list[Room]:
    """The CPU comes first. Engines on a GPU take some of this machine's memory too."""
    gpus = [device for device in engine.devices if device.startswith("cuda")]
    rooms: list[Room] = []
    if on_cpu := len(engine.devices) - len(gpus):
        rooms.append((replace(engine, device="cpu", engines=on_cpu), max(0, free - len(gpus) * HOST_BYTES)))
    rooms += [(replace(engine, device=device, engines=1), gpu_memory(device)) for device in gpus]
    if engine.remote_engines and elsewhere is not None:
        device = engine.device if engine.device.startswith("cuda") else "cpu"
        rooms.append((replace(engine, device=device, engines=1), elsewhere))
    return rooms

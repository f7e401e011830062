"""Which device an engine uses, and why one cannot be used: said before anything is loaded."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_models import tiny_model

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.fleet.autoscaling import check_scaling, scaling_rules
from antiphon.errors import ConfigError
from antiphon.gpu_footprint import HOST_BYTES
from antiphon.loading import device_plan
from antiphon.loading.assembly import with_devices
from antiphon.machine import gpu
from antiphon.machine.gpu import Gpu, choose_device, choose_devices, gpu_memory, see_gpus
from antiphon.memory_plan import plan_memory
from antiphon.runtime import accelerator

A100 = Gpu("NVIDIA A100", (8, 0), 80 << 30, 70 << 30, "570.1")
T4 = Gpu("Tesla T4", (7, 5), 15 << 30, 14 << 30, "570.1")


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are missing."""
    missing: set[str] = set()
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name in missing else object())
    return missing


def test_the_cpu_needs_neither_gpu_nor_packages(packages: set[str]) -> None:
    packages |= {"torch", "triton"}
    assert choose_device("cpu", []) == "cpu"
    assert choose_device("auto", [A100]) == "cpu"


def test_auto_takes_the_first_gpu_if_it_can_be_used(packages: set[str]) -> None:
    assert choose_device("auto", [A100, T4]) == "cuda:0"
    assert choose_device("auto", [T4]) == "cpu"
    assert choose_device("auto", []) == "cpu"


@pytest.mark.parametrize(
    ("requested", "gpus", "missing", "message"),
    [
        ("cuda", [], set(), "no NVIDIA GPU, or its driver is not installed"),
        ("cuda:2", [A100, T4], set(), "there is cuda:0 (NVIDIA A100), cuda:1 (Tesla T4)"),
        ("cuda:1", [A100, T4], set(), "the Tesla T4 (cuda:1) has compute capability 7.5; 8.0 or later is needed"),
        ("cuda", [T4, T4], set(), "the Tesla T4 (cuda:1) has compute capability 7.5; 8.0 or later is needed"),
        ("cuda", [A100], {"triton"}, "needs triton: pip install 'antiphon[gpu]'"),
        ("interpreter", [], {"torch", "triton"}, "needs torch and triton: pip install 'antiphon[gpu]'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    packages: set[str], requested: str, gpus: list[Gpu], missing: set[str], message: str
) -> None:
    packages |= missing
    with pytest.raises(ConfigError) as refusal:
        choose_device(requested, gpus)
    assert message in refusal.value.message
    assert requested in refusal.value.message


def test_gpus_are_as_nvidia_smi_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'NVIDIA H100 80GB HBM3, 9.0, 81559, 81000, 570.86, GPU-11'\n"
        "echo 'Broken, [N/A], [N/A], [N/A], 570.86, GPU-22'\n"
        "echo 'Tesla T4, 7.5, 15360, 14000, 570.86, GPU-33'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = see_gpus()
    assert first == Gpu("NVIDIA H100 80GB HBM3", (9, 0), 81559 << 20, 81000 << 20, "570.86", "GPU-11")
    assert second.name == "Tesla T4"
    assert gpu_memory("cuda:0", [first]) == 81000 << 20
    for visible, names in {
        "2, 0": ["Tesla T4", first.name],
        "GPU-33": ["Tesla T4"],
        "0,7,2": [first.name],  # what comes after a mistake is hidden
        "GPU-,0": [],  # of two GPUs
        "MIG-44": [first.name],
        "1": [],
        "": [],
        "-1": [],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [each.name for each in see_gpus()] == names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(ConfigError, match="nvidia-smi lists none that CUDA_VISIBLE_DEVICES='7' leaves"):
        choose_device("cuda")
    program.write_text("#!/bin/sh\nexit 9\n")  # a driver that does not answer
    assert see_gpus() == []


def test_the_plan_for_a_mig_instance_is_made_for_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class NvmlError(Exception): ...

    def handle(uuid: str) -> str:
        if uuid != "MIG-44":
            raise NvmlError
        return uuid

    library = SimpleNamespace(
        NVMLError=NvmlError,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetMemoryInfo=lambda instance: SimpleNamespace(total=10 << 30, free=9 << 30),
    )
    monkeypatch.setattr("antiphon.machine.gpu_usage._load", lambda: library)
    (instance,) = gpu._visible([A100], "MIG-44")
    assert instance == replace(A100, total=10 << 30, free=9 << 30)
    assert gpu_memory("cuda:0", [instance]) == 9 << 30
    assert gpu._visible([A100], "MIG-55") == [A100]  # NVML does not know it


def test_an_engine_numbers_gpus_as_nvidia_smi_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA would put the fastest first; it reads the order once, so it is set before PyTorch is imported."""
    order: list[str | None] = []

    def create_runner(*_: object) -> None:
        order.append(os.environ.get("CUDA_DEVICE_ORDER"))

    monkeypatch.setitem(sys.modules, "antiphon.runtime.gpu", SimpleNamespace(create_runner=create_runner))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    accelerator.create_runner(EngineConfig("m.gguf", device="cuda:1"), None, lambda fraction, phase: None)
    assert order == ["PCI_BUS_ID"]


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cuda:1234", ""])
def test_a_device_that_cannot_be_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="--device"):
        EngineConfig("m.gguf", device=device)


def test_a_gpu_has_an_int8_cache_alone(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--kv-cache-type f16 is for the CPU; cuda needs int8"):
        EngineConfig("m.gguf", device="cuda", kv_cache_type="f16")
    with pytest.raises(ConfigError, match="--kv-cache-type f16 is for the CPU; cuda:1 needs int8"):
        EngineConfig("m.gguf", devices=("cpu", "cuda:1"), kv_cache_type="f16")
    monkeypatch.setattr(gpu, "see_gpus", lambda: [A100])
    assert with_devices(EngineConfig("m.gguf", device="auto")).devices == ("cuda:0",)
    assert with_devices(EngineConfig("m.gguf", device="auto", kv_cache_type="f16")).local_devices == ("",)


@pytest.mark.parametrize(
    ("requested", "engines", "named", "devices"),
    [
        ("cpu", 0, (), ["cpu"]),
        ("cpu", 3, (), ["cpu", "cpu", "cpu"]),
        ("cuda", 0, (), ["cuda:0", "cuda:2"]),  # T4s are too old
        ("auto", 0, (), ["cuda:0", "cuda:2"]),
        ("cuda", 1, (), ["cuda:0"]),
        ("cuda:2", 0, (), ["cuda:2"]),
        ("cpu", 0, ("cuda:2", "cpu"), ["cuda:2", "cpu"]),
        ("cpu", 0, ("cuda", "cpu", "cpu"), ["cuda:0", "cuda:2", "cpu", "cpu"]),
        ("cpu", 2, ("cuda:0",), ["cpu", "cpu", "cuda:0"]),
        ("cuda", 1, ("cuda",), ["cuda:0", "cuda:2"]),
        ("cuda", 1, ("cpu",), ["cuda:0", "cpu"]),
    ],
)
def test_each_engine_has_a_device(
    packages: set[str], requested: str, engines: int, named: tuple[str, ...], devices: list[str]
) -> None:
    assert list(choose_devices(requested, engines, named, [A100, T4, A100])) == devices


@pytest.mark.parametrize(
    ("requested", "engines", "named", "message"),
    [
        ("cuda", 3, (), "--engines is 3, and there are 2 GPUs that can be used"),
        ("cuda:0", 2, (), "cuda:0 has 2 engines; an engine needs a GPU of its own"),
        ("cpu", 0, ("cuda:0", "cuda:0"), "cuda:0 has 2 engines"),
        ("cuda", 1, ("cuda:0",), "cuda:0 has 2 engines"),
        ("cpu", 0, ("cuda:1", "cpu"), "the Tesla T4 (cuda:1) has compute capability 7.5"),
        ("cpu", 0, ("cuda:9", "cpu"), "there is no such GPU"),
    ],
)
def test_engines_that_cannot_have_their_devices_are_refused(
    packages: set[str], requested: str, engines: int, named: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        choose_devices(requested, engines, named, [A100, T4, A100])
    assert message in refusal.value.message


def test_engines_of_one_device_are_a_number_and_others_are_named(
    packages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "see_gpus", lambda: [A100, A100])

    def decided(**settings: object) -> tuple[str, int, tuple[str, ...]]:
        engine = with_devices(EngineConfig("m.gguf", **settings))
        return engine.device, engine.engines, engine.devices

    assert decided() == ("cpu", 0, ())  # as many as there are NUMA nodes
    assert decided(devices=("cpu", "cpu")) == ("cpu", 2, ())
    assert decided(device="interpreter") == ("interpreter", 0, ())
    assert decided(device="cuda") == ("cuda:0", 0, ("cuda:0", "cuda:1"))
    assert decided(devices=("cuda:1", "cpu")) == ("cpu", 0, ("cuda:1", "cpu"))
    assert decided(device="cuda", remote_engines=("tcp://a:1",)) == ("cuda", 0, ())  # any GPU there
    assert decided(device="auto", remote_engines=("tcp://a:1",)) == ("cpu", 0, ())
    assert decided(device="cuda", engines=1, remote_engines=("tcp://a:1",)) == ("cuda", 0, ("cuda:0",))


def test_all_devices_get_the_precision_and_the_kv_cache_for_which_the_smallest_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint, room = tiny_model(type="BF16"), {"cuda:0": 2 << 30, "cuda:1": 40 << 30}
    monkeypatch.setattr(device_plan, "gpu_memory", room.__getitem__)

    def tokens(free: int, *devices: str, elsewhere: int | None = None, **settings: object) -> int:
        engine = EngineConfig("m.gguf", devices=devices, context_length=512, **settings)
        plan, planned = device_plan.plan_devices(checkpoint, engine, free, elsewhere)
        assert (planned.num_local_engines, planned.devices) == (len(devices), devices)
        assert (plan.gpu is None) is ("cpu" in devices)
        assert plan.kv_cache_tokens == planned.kv_cache_tokens
        return planned.kv_cache_tokens

    def smallest_room() -> tuple[int, int]:
        """Bytes of memory for which the CPU has room for a KV cache, and its tokens."""
        config = EngineConfig("m.gguf", context_length=512, engines=1)
        for free in range(200 << 20, 600 << 20, 1 << 20):
            if found := plan_memory(checkpoint, config, free).kv_cache_tokens:
                return free, found
        raise AssertionError("there never is")

    little, few = smallest_room()
    many = tokens(40 << 30, "cuda:0", "cuda:1")
    assert many > few
    assert tokens(little + HOST_BYTES, "cuda:1", "cpu") == few  # the engine on the GPU takes some memory here
    assert tokens(40 << 30, "cpu", "cuda:1", elsewhere=little, remote_engines=("tcp://a:1",)) == few
    room["cuda:0"] = 300 << 20
    with pytest.raises(ConfigError, match="not enough memory on cuda:0"):
        tokens(40 << 30, "cuda:0", "cpu")


@pytest.mark.parametrize("devices", [("cpu",), ("cuda:0",), ("cuda:0", "cpu")])
def test_every_plan_has_what_an_engine_takes_on_the_cpu_and_on_a_gpu(
    devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`antiphon engines add cpu` or `add cuda:1` needs that much free memory. The KV cache may not fit there."""
    checkpoint = tiny_model(type="BF16")
    monkeypatch.setattr(device_plan, "gpu_memory", lambda device: 8 << 30)
    engine = EngineConfig("m.gguf", devices=devices, context_length=512, kv_cache_tokens=1 << 21)
    plan, planned = device_plan.plan_devices(checkpoint, engine, 40 << 30, None)
    planned = device_plan.with_sizes_anywhere(checkpoint, planned)
    assert planned.memory_bytes > plan.kv_cache_bytes > 0
    on_cpu, on_gpu = (
        plan_memory(checkpoint, replace(planned, device=device, devices=(), engines=1), 40 << 30)
        for device in ("cpu", "cuda:1")
    )
    assert planned.memory_bytes == on_cpu.engine_bytes
    assert (planned.gpu_bytes, planned.host_bytes) == (on_gpu.engine_bytes, on_gpu.host_bytes)
    assert planned.gpu_bytes > plan.kv_cache_bytes
    assert (planned.memory_reserve > 0) is ("cuda:0" in devices)
    without = replace(planned, devices=(), gpu_bytes=0, host_bytes=0, kv_cache_type="f16")
    assert device_plan.with_sizes_anywhere(checkpoint, without).gpu_bytes == 0


def test_engines_on_gpus_of_other_machines_are_planned_for_these(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_model(type="BF16")
    monkeypatch.setattr(device_plan, "gpu_memory", lambda device: 40 << 30)
    engine = EngineConfig(
        "m.gguf", device="cuda", devices=("cuda:0",), remote_engines=("tcp://a:1",), context_length=512
    )
    _, planned = device_plan.plan_devices(checkpoint, engine, 40 << 30, 1 << 30)
    alone = plan_memory(checkpoint, replace(engine, devices=(), engines=1), 1 << 30)
    assert planned.kv_cache_tokens == alone.kv_cache_tokens
    assert alone.gpu is not None


def test_engines_are_added_on_the_cpu_only_where_it_comes_last() -> None:
    server = ServerConfig(max_engines=4)
    for settings in ({"device": "cuda"}, {"devices": ("cpu", "cuda:0")}):
        with pytest.raises(ConfigError, match="put the device that engines may be added on last"):
            check_scaling(EngineConfig("m.gguf", **settings), server)
    mixed = EngineConfig("m.gguf", devices=("cuda:0", "cpu"))
    check_scaling(mixed, server)
    rules = scaling_rules(mixed, server)
    assert rules
    assert (rules.address, rules.minimum, rules.maximum) == ("cpu", 1, 3)

"""What the driver reports of a GPU, read through nvidia-ml-py from a real library that stands in for the driver's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_nvml import DRIVER_NOT_LOADED, GPU, GPU_IS_LOST, INSTANCE, NOT_SUPPORTED, FakeNvml, build, use

from antiphon.machine.gpu_usage import GpuUsage, Nvml

GIB = 1 << 30
CARD = GpuUsage(10 * GIB, 24 * GIB, 0.4, 61.0, 95.0, 180.5, 300.0)
INSTANCE_OF_CARD = GpuUsage(None, None, None, 61.0, 95.0, 180.5, 300.0)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNvml:
    return use(library, monkeypatch, tmp_path / "state")


def test_what_the_driver_reports_comes_in_bytes_shares_degrees_and_watts(driver: FakeNvml):
    nvml = Nvml()
    assert nvml.usage(GPU) == CARD
    driver.set(used=11 * GIB, utilization=100)
    assert nvml.usage(GPU) == GpuUsage(11 * GIB, 24 * GIB, 1.0, 61.0, 95.0, 180.5, 300.0)


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("used", ("used", "total")),
        ("utilization", ("utilization",)),
        ("temperature", ("temperature",)),
        ("slowdown", ("temperature_limit",)),
        ("milliwatts", ("power",)),
        ("milliwatts_limit", ("power_limit",)),
    ],
)
@pytest.mark.parametrize("error", [NOT_SUPPORTED, GPU_IS_LOST])
def test_a_value_that_the_driver_does_not_have_is_not_known_and_the_others_are(
    driver: FakeNvml, value: str, fields: tuple[str, ...], error: str
):
    driver.set(**{value: error})
    usage = Nvml().usage(GPU)
    assert {name: getattr(usage, name) for name in fields} == dict.fromkeys(fields)
    others = [name for name in GpuUsage.__slots__ if name not in fields]
    assert [getattr(usage, name) for name in others] == [getattr(CARD, name) for name in others]


def test_a_card_at_zero_is_a_value(driver: FakeNvml):
    driver.set(used=0, utilization=0, milliwatts=0)
    usage = Nvml().usage(GPU)
    assert (usage.used, usage.utilization, usage.power) == (0, 0.0, 0.0)


def test_of_a_mig_instance_only_what_is_true_of_the_whole_card_is_known(driver: FakeNvml):
    assert Nvml().usage(INSTANCE).temperature == 61.0
    driver.set(mig_mode=1)
    assert Nvml().usage(INSTANCE) == INSTANCE_OF_CARD
    assert Nvml().usage(GPU) == INSTANCE_OF_CARD, "CUDA may give the card's UUID"
    driver.set(mig_mode=0)
    assert Nvml().usage(GPU) == CARD


def test_of_a_gpu_that_is_not_in_this_machine_nothing_is_known(driver: FakeNvml):
    assert Nvml().usage("00000000-0000-1111-2222-0123456789ab") == GpuUsage()


def test_without_a_driver_nothing_is_known_and_it_is_looked_for_again_after_a_minute(driver: FakeNvml):
    now = 100.0
    nvml = Nvml(lambda: now)
    driver.set(driver=DRIVER_NOT_LOADED)
    assert nvml.usage(GPU) == GpuUsage()
    driver.set(driver=1)
    now = 159.0
    assert nvml.usage(GPU) == GpuUsage()
    now = 160.0
    assert nvml.usage(GPU) == CARD


def test_without_the_package_nothing_is_known(driver: FakeNvml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml().usage(GPU) == GpuUsage()

"""How a model is served in the memory there is: decided once, the same for every engine, and shown by `inspect`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_folders import write_random_folder

from antiphon import footprint
from antiphon.checkpoint import Checkpoint
from antiphon.commands.inspect import describe
from antiphon.config import EngineConfig, ServerConfig
from antiphon.errors import ConfigError
from antiphon.formats import open_checkpoint
from antiphon.loading.assembly import assemble, planned_for_this_machine
from antiphon.loading.model import Found
from antiphon.machine import Memory
from antiphon.memory_plan import MemoryPlan, plan_memory
from antiphon.runtime.cpu import create_runner

BLOCK = footprint.KV_BLOCK_SIZE
PLENTY = 64 << 30


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return open_checkpoint(write_random_folder(tmp_path / "m", "qwen2"))


def plan(checkpoint: Checkpoint, available: int = PLENTY, **settings: object) -> MemoryPlan:
    return plan_memory(checkpoint, EngineConfig(model="m", **settings), available)


def memory_for(checkpoint: Checkpoint, tokens: int) -> int:
    """Memory in which the default KV cache has so few tokens that weights are in 4 bits; it takes half of the room."""
    served = plan(checkpoint, kv_cache_tokens=BLOCK, quantization="w4")
    needed = served.weights.resident + footprint.PROCESS_BYTES + 2 * tokens * served.kv_bytes_per_token
    return int(needed / (1 - footprint.RESERVE_SHARE)) + 100


def has_free(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    """Make it look as if so much memory could be taken."""
    monkeypatch.setattr("antiphon.machine.see_memory", lambda *root: Memory(PLENTY, available, None))


def test_with_memory_to_spare_the_context_is_the_models_own(checkpoint):
    own = checkpoint.settings["max_position_embeddings"]
    served = plan(checkpoint)
    assert (served.context_length, served.problem) == (own, "")
    assert served.kv_cache_tokens == footprint.CROWD_TOKENS >= own


def test_what_is_asked_for_is_what_is_had(checkpoint):
    served = plan(checkpoint, kv_cache_tokens=10 * BLOCK + 5, context_length=100, quantization="w4")
    assert (served.kv_cache_tokens, served.context_length) == (10 * BLOCK, 100)
    assert served.quantization.name == "w4"
    assert plan(checkpoint, context_length=1 << 40).context_length == checkpoint.settings["max_position_embeddings"]


def test_little_memory_cuts_the_context(checkpoint):
    served = plan(checkpoint, memory_for(checkpoint, 3 * BLOCK))
    assert (served.kv_cache_tokens, served.context_length) == (3 * BLOCK, 3 * BLOCK)


@pytest.mark.parametrize(
    ("available", "asked", "message"),
    [
        (PLENTY, 10**10, r"--kv-cache-tokens 10,000,000,000 would take .* GiB; .* this machine has memory for"),
        (PLENTY, BLOCK - 1, f"at least one block of {BLOCK} tokens"),
        (1 << 20, 0, "not enough memory for the weights and a KV cache"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(checkpoint, available, asked, message):
    config = EngineConfig(model="m", kv_cache_tokens=asked)
    served = plan_memory(checkpoint, config, available)
    assert (served.kv_cache_tokens, served.context_length) == (0, 0)
    with pytest.raises(ConfigError, match=message):
        served.applied_to(config)


@pytest.mark.parametrize("settings", [{}, {"quantization": "w4"}, {"kv_cache_tokens": 5 * BLOCK, "context_length": 64}])
def test_a_plan_that_is_applied_leaves_nothing_to_choose(checkpoint, settings):
    """Planned again with what an engine is sent, and with hardly any memory, it is the same."""
    wishes = EngineConfig(model="m", **settings)
    served = plan_memory(checkpoint, wishes, memory_for(checkpoint, 40 * BLOCK))
    sent = served.applied_to(wishes)
    again = plan_memory(checkpoint, sent, PLENTY)
    assert again.applied_to(sent) == sent
    assert (again.kv_cache_tokens, again.context_length) == (served.kv_cache_tokens, served.context_length)


def test_several_engines_share_the_memory_and_each_has_its_own_weights(checkpoint):
    one = plan(checkpoint, memory_for(checkpoint, 40 * BLOCK))
    each = plan(checkpoint, 2 * memory_for(checkpoint, 40 * BLOCK), engines=2)
    assert (each.num_engines, each.kv_cache_tokens) == (2, one.kv_cache_tokens)
    assert each.engine_bytes == one.weights.resident + one.kv_cache_bytes + footprint.PROCESS_BYTES
    sent = each.applied_to(EngineConfig(model="m", engines=2))
    assert (sent.engines, sent.memory_bytes) == (2, each.engine_bytes)
    assert 2 * each.engine_bytes <= 2 * memory_for(checkpoint, 40 * BLOCK)


def test_engines_that_do_not_fit_are_refused_and_the_default_is_fewer(checkpoint, monkeypatch):
    available = memory_for(checkpoint, 40 * BLOCK)
    with pytest.raises(ConfigError, match=r"KV cache of each of 2 engines; lower --engines"):
        plan(checkpoint, available, engines=2).applied_to(EngineConfig(model="m"))
    for place in ("antiphon.loading.assembly", "antiphon.machine"):
        monkeypatch.setattr(f"{place}.default_engines", lambda *_: 2)
    has_free(monkeypatch, available)
    assembly = assemble(Found(checkpoint.path, "m"), EngineConfig(model=""), ServerConfig())
    assembly.model.text.close()
    assert assembly.engine.engines == describe(checkpoint)["plan"]["engines"] == 1
    has_free(monkeypatch, 2 * available)
    assert describe(checkpoint)["plan"]["engines"] == 2


@pytest.mark.parametrize(
    ("here", "free", "elsewhere", "blocks"), [(0, 1, 4, 4), (1, 2, 4, 2), (1, 4, 2, 2), (2, 8, 3, 3), (2, 4, None, 2)]
)
def test_with_engines_elsewhere_the_least_memory_of_an_engine_decides(checkpoint, here, free, elsewhere, blocks):
    """In blocks of the KV cache: the memory that is free here, and on the other machine."""
    count = max(1, here)
    available = count * memory_for(checkpoint, free // count * BLOCK)
    there = None if elsewhere is None else memory_for(checkpoint, elsewhere * BLOCK)
    config = EngineConfig(model="m", engines=here, remote_engines=("tcp://a:1",))
    assembly = assemble(Found(checkpoint.path, "m"), config, ServerConfig(), available, there)
    assembly.model.text.close()
    assert assembly.engine.kv_cache_tokens == blocks * BLOCK
    assert (assembly.engine.engines, assembly.engine.num_local_engines) == (here, here)
    assert assembly.engine.typed_model == "m"
    assert bool(assembly.memory_reserve) <= bool(here)


def test_a_gpus_reserve_is_each_engines_and_none_of_the_machines(checkpoint, monkeypatch):
    available = 4 << 30  # bytes, mostly for the KV cache
    gpus = ("cuda:0", "cuda:1")
    monkeypatch.setattr("antiphon.loading.assembly.choose_devices", lambda wish, engines, named: gpus)
    monkeypatch.setattr("antiphon.loading.device_plan.gpu_memory", lambda device: available)
    config = EngineConfig(model="m", device="cuda", engines=2)
    assembly = assemble(Found(checkpoint.path, "m"), config, ServerConfig())
    assembly.model.text.close()
    assert assembly.engine.devices == gpus
    assert assembly.engine.memory_reserve == available - assembly.engine.gpu_bytes > 0
    assert assembly.memory_reserve == 0


def test_an_engine_that_starts_with_less_memory_is_as_large_as_the_first(checkpoint, monkeypatch):
    planned = planned_for_this_machine(EngineConfig(model=str(checkpoint.path), threads=1))
    first = create_runner(planned)
    for place in ("antiphon.machine.see_memory", "antiphon.machine.memory.see_memory"):
        monkeypatch.setattr(place, lambda *root: pytest.fail("an engine must not look at the memory that is free"))
    second = create_runner(planned)
    assert (second.num_blocks, second.context_length) == (first.num_blocks, first.context_length)
    assert second.describe() == first.describe()


def test_every_engine_of_a_model_gets_the_plan_that_inspect_shows(checkpoint, monkeypatch):
    available = memory_for(checkpoint, 4 * BLOCK)
    has_free(monkeypatch, available)
    shown = describe(checkpoint)["plan"]
    assembly = assemble(Found(checkpoint.path, "m"), EngineConfig(model=""), ServerConfig())
    assembly.model.text.close()
    assert shown["kv_cache_tokens"] == assembly.engine.kv_cache_tokens == 4 * BLOCK
    assert shown["context_length"] == assembly.plan.context_length == 4 * BLOCK
    assert shown["quantization"] == assembly.engine.quantization
    assert shown["problem"] == ""


def test_inspect_plans_for_the_gpu_that_auto_chooses(checkpoint, monkeypatch):
    monkeypatch.setattr("antiphon.machine.gpu.choose_device", lambda wish: {"auto": "cuda:0"}.get(wish, wish))
    monkeypatch.setattr("antiphon.machine.gpu.gpu_memory", lambda device: 4 << 30)
    chosen, named = describe(checkpoint, device="auto"), describe(checkpoint, device="cuda:0")
    for part in ("memory", "kv_cache", "plan"):
        assert chosen[part] == named[part]
    assert chosen["memory"]["step_buffers"] > 0


def test_inspect_says_why_a_model_cannot_be_served_here(checkpoint, monkeypatch):
    has_free(monkeypatch, 1 << 20)
    assert "not enough memory" in describe(replace(checkpoint))["plan"]["problem"]

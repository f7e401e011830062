"""Opens a model that was found: its text side, name, sampling defaults, and the configuration of its engine.

Owns the rules by which a checkpoint becomes a served model, the same for every way of running one. Starts only the
process that renders templates, which ends with the text side (`ServedModel.text.close()`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from antiphon.api.served_model import ModelDetails, ServedModel
from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig, ServerConfig
from antiphon.formats import open_checkpoint
from antiphon.loading.device_plan import plan_devices, with_sizes_anywhere
from antiphon.loading.model import Found, generation_defaults
from antiphon.machine import Machine, default_engines, free_memory_bytes, see_machine
from antiphon.machine.gpu import choose_devices
from antiphon.memory_plan import MemoryPlan, plan_engines, plan_memory
from antiphon.text import TextModel
from antiphon.text.lint import completed_advice

_NOT_KNOWN = 1 << 62  # bytes: a host that has less says so when it is asked for an engine


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything that is needed to run one model."""

    checkpoint: Checkpoint
    model: ServedModel
    engine: EngineConfig
    plan: MemoryPlan
    machine: Machine  # as it was before anything was loaded

    @property
    def num_engines(self) -> tuple[int, int]:
        """The number of engines on this machine, and on others."""
        return self.engine.num_local_engines, len(self.engine.remote_engines)

    @property
    def memory_reserve(self) -> int:
        """Bytes of this machine's memory that stay free when all KV caches are full.

        0: not known, since no engine uses this machine's memory.
        """
        devices = [each or self.engine.device for each in self.engine.local_devices]
        return self.plan.reserve if any(not each.startswith("cuda") for each in devices) else 0


def assemble(
    found: Found,
    engine: EngineConfig,
    settings: ServerConfig,
    available: int | None = None,
    elsewhere: int | None = None,
) -> Assembly:
    """Open the model. `available`: bytes of this machine's memory that engines may use; None: what is free.

    `elsewhere`: bytes of its device for each engine on other machines, if there are some; None: not known. All engines
    get the same plan, so the one with the least memory decides.

    Raises:
        CheckpointError: it cannot be served.
        ConfigError: there is not enough memory for it, or a device cannot be used.
    """
    checkpoint = open_checkpoint(found.path)
    # Decided here, once: an engine that replaces another must compute the same bits, whatever memory is free then.
    machine = see_machine(engine.threads)
    engine = with_devices(engine)
    if available is None:
        available = machine.memory.free
    most = 1 if engine.device != "cpu" else default_engines(machine.processors, engine.threads)
    if engine.devices:
        plan, planned = plan_devices(checkpoint, engine, available, elsewhere)
    elif engine.remote_engines:
        plan = _plan_with_others(checkpoint, engine, available, elsewhere)
        planned = replace(plan.applied_to(engine), engines=engine.engines)
    else:
        plan = plan_engines(checkpoint, engine, available, most)
        planned = plan.applied_to(engine)
    planned = with_sizes_anywhere(checkpoint, planned)
    model = open_text_side(checkpoint, found, settings)
    # The fake runner has no model to learn these from.
    fake = replace(
        engine.fake_settings,
        vocab_size=checkpoint.settings["vocab_size"],
        context_length=checkpoint.settings["max_position_embeddings"],
    )
    planned = replace(
        planned, model=str(found.path), typed_model=engine.model, files=checkpoint.files.opened, fake_settings=fake
    )
    return Assembly(checkpoint, model, planned, plan, machine)


def open_text_side(checkpoint: Checkpoint, found: Found, settings: ServerConfig) -> ServedModel:
    """All of a model that needs no engine: its text side, name and sampling defaults.

    Raises CheckpointError: it cannot be served.
    """
    text = TextModel.from_checkpoint(checkpoint, tool_call_parser=settings.tool_call_parser)
    return ServedModel(
        settings.model_name or found.name,
        text,
        completed_advice(text, generation_defaults(checkpoint)),
        aliases=frozenset({found.typed} - {""}),
        details=_details(checkpoint),
    )


def with_devices(engine: EngineConfig) -> EngineConfig:
    """The settings with the device of each engine on this machine decided.

    Engines that all use the CPU, or the interpreter, are a number; GPUs, and different devices, are named.

    Raises ConfigError, saying what to do, where a device cannot be used.
    """
    if not engine.local_devices:  # other machines look for their GPUs themselves
        return replace(engine, device="cpu" if engine.device == "auto" else engine.device)
    requested = "cpu" if engine.device == "auto" and engine.kv_cache_type != "int8" else engine.device
    devices = choose_devices(requested, engine.engines, engine.devices)
    first = devices[0] if requested in ("auto", "cuda") else requested
    if set(devices) == {first} and not first.startswith("cuda"):
        count = len(devices) if engine.engines or engine.devices else 0
        return replace(engine, device=first, engines=count, devices=())
    if engine.remote_engines and requested == "cuda":
        first = requested  # any GPU there
    return replace(engine, device=first, engines=0, devices=devices)


def _plan_with_others(checkpoint: Checkpoint, engine: EngineConfig, free: int, elsewhere: int | None) -> MemoryPlan:
    """A plan for engines here, if there are some, and on other machines, which must have room for it too."""
    count = max(1, engine.num_local_engines)
    shares = [free // count] if engine.num_local_engines else []
    shares += [elsewhere] if elsewhere is not None else []
    return plan_memory(checkpoint, replace(engine, engines=count), min(shares, default=_NOT_KNOWN) * count)


def planned_for_this_machine(engine: EngineConfig) -> EngineConfig:
    """The settings with a plan for `engine.model` applied: what a runner needs that is made without a front."""
    checkpoint = open_checkpoint(Path(engine.model))
    return plan_memory(checkpoint, replace(engine, engines=1), free_memory_bytes()).applied_to(engine)


def _details(checkpoint: Checkpoint) -> ModelDetails:
    weights: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        weights[tensor.type] += tensor.num_elements
    return ModelDetails(
        format=checkpoint.format,
        architecture=checkpoint.architecture,
        num_parameters=weights.total(),
        num_bytes=sum(tensor.num_bytes for tensor in checkpoint.tensors.values()),
        stored_type=weights.most_common(1)[0][0] if weights else "",
    )

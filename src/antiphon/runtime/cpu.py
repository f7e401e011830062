"""The CPU runner: a checkpoint packed for the native kernels, a KV pool, and steps replayed by the recorded program.

It translates: settings into a program's shape, a StepPlan into the program's inputs, outcomes into a StepResult.
Between steps it keeps the KV pool and how each sequence samples. It decides nothing by the memory that is free: the
settings come with a plan applied to them (`memory_plan`). Raises CheckpointError or ConfigError for what cannot be
loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from antiphon import _native
from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.errors import CheckpointError, NotEnoughMemory
from antiphon.formats import open_checkpoint
from antiphon.machine import default_threads
from antiphon.model_files import ModelFiles
from antiphon.models.dense import check_tensors
from antiphon.models.spec import ModelSpec
from antiphon.ops.native import open_device, quantize
from antiphon.quantization import as_quantized
from antiphon.runtime.fingerprint import (
    NUM_BLOCKS,
    PROMPT_LENGTH,
    ProbedRunner,
    arithmetic_fingerprint,
    model_fingerprint,
)
from antiphon.runtime.probe_models import biased_model, normed_model
from antiphon.runtime.recorded import RecordedRunner, model_settings, sample_requests, shape_of, step_result
from antiphon.step import LoadReport, ScheduledSequence, StepPlan, StepResult


class LoadedRunner(ProbedRunner, Protocol):
    """A runner of a model that was loaded."""

    def take_fingerprints(self) -> None:
        """Compute the fingerprints that `describe` returns. Call it before the first step."""
        ...


_Runner = TypeVar("_Runner", bound=LoadedRunner)
# (settings, threads and native kernels, model, its numbers, what grows with progress, who hears of it) → a runner
Creation: TypeAlias = Callable[
    [EngineConfig, _native.Device, Checkpoint, ModelSpec, "memoryview | None", LoadReport], _Runner
]


def create_runner(
    config: EngineConfig, progress: memoryview | None = None, report: LoadReport = lambda fraction, phase: None
) -> CpuRunner:
    """Load `config.model`; `progress` is eight writable bytes that grow with every operation done.

    `config` has a plan applied to it: nothing in it is left to be chosen by memory.
    """
    return load_runner(CpuRunner, config, progress, report)


def load_runner(
    create: Creation[_Runner],
    config: EngineConfig,
    progress: memoryview | None,
    report: LoadReport,
) -> _Runner:
    """Open `config.model`, and create a runner of it; see `create_runner`."""
    assert config.quantization != "auto", "the plan says which quantization"
    assert config.kv_cache_tokens, "the plan says how large the KV cache is"
    assert config.context_length, "the plan says how long the context is"
    checkpoint = open_checkpoint(Path(config.model), ModelFiles(config.files) if config.files else None)
    try:
        runner = _loaded(create, config, checkpoint, progress, report)
    except CheckpointError as error:  # which knows tensors and settings, but not the file
        checkpoint.files.check_unchanged()
        raise CheckpointError(f"{config.model}: {error.message}") from None
    checkpoint.files.check_unchanged()  # else the weights may be partly of one model, partly of another
    runner.take_fingerprints()
    return runner


def _loaded(
    create: Creation[_Runner],
    config: EngineConfig,
    checkpoint: Checkpoint,
    progress: memoryview | None,
    report: LoadReport,
) -> _Runner:
    spec = ModelSpec.from_checkpoint(checkpoint)
    check_tensors(checkpoint)
    device = create_device(config, progress)
    checkpoint = as_quantized(checkpoint, config.quantization, partial(quantize, device))
    return create(config, device, checkpoint, spec, progress, report)


def create_device(config: EngineConfig, progress: memoryview | None = None) -> _native.Device:
    """Threads and kernels; `progress` as in `create_runner`.

    Raises ConfigError for an instruction set that this machine does not have, and for threads that cannot be started.
    """
    return open_device(config.instruction_set, config.threads or default_threads(), progress)


class CpuRunner(RecordedRunner):
    """A Runner on the native kernels."""

    def __init__(
        self,
        config: EngineConfig,
        host: _native.Device,
        checkpoint: Checkpoint,
        spec: ModelSpec,
        progress: memoryview | None,
        report: LoadReport,
    ) -> None:
        super().__init__(config, host, checkpoint, spec)
        counter = np.frombuffer(progress, np.uint64) if progress is not None else None
        shape = shape_of(config, spec, self.num_blocks, self.context_length)
        try:
            self._program = _native.Program(host, _native.ProgramShape(kv_type=config.kv_cache_type, **shape), counter)
        except MemoryError:
            raise NotEnoughMemory from None
        ops = self._record(self._program, checkpoint, report)
        # What every step reads from the files themselves; everything else was copied.
        self._mapped_files = checkpoint.files if ops.has_mapped_table else None

    def execute(self, plan: StepPlan) -> StepResult:
        requests = sample_requests(self._samplings, plan)
        inputs = [
            _sequence_input(sequence, of_sequence or [])
            for sequence, of_sequence in zip(plan.sequences, requests, strict=True)
        ]
        outcomes = self._program.run(inputs)
        if self._mapped_files is not None:
            self._mapped_files.check_unchanged()  # before anybody is sent a token that other bytes led to
        return step_result(plan, requests, outcomes)

    def logits(self) -> NDArray[np.float32]:
        """The logits of the last step's last sampled rows, as many as sequences may run, float32 [rows, vocabulary]."""
        return self._program.last_logits(self.vocab_size)

    def last_seconds(self) -> dict[str, float]:
        """What each part of the last step's program took, in seconds; for measuring."""
        return self._program.last_seconds

    def last_loops(self) -> list[tuple[str, int]]:
        """The parallel loops of the last step's program, in order: the part of the step and the number of tasks."""
        return self._program.last_loops

    def take_fingerprints(self) -> None:
        """Compute the fingerprints that `describe` returns. Call it before the first step."""
        settings = model_settings(self._config, self._spec, self._wide)
        self._fingerprints = {
            "fingerprint": fingerprint_of(self._host),
            "model_fingerprint": model_fingerprint(self, settings),
        }

    def device_memory(self) -> None:
        """There is none but the machine's."""

    def describe(self) -> dict[str, str | int | float]:
        return {
            **self._described(self._program.block_bytes),
            "device": "cpu",
            "instruction_set": self._host.instruction_set,
            "kv_cache_type": self._config.kv_cache_type,
        }


def fingerprint_of(device: _native.Device) -> str:
    """The fingerprint of the arithmetic of a device (`fingerprint.arithmetic_fingerprint`)."""
    return arithmetic_fingerprint(
        _probed(CpuRunner, device, *probe)
        for probe in ((biased_model(), "int8", "int8"), (normed_model(), "f16", "int16"))
    )


def probe_fingerprint(create: Creation[_Runner], host: _native.Device, device: str) -> str:
    """The fingerprint of what a runner computes with the probe model that has an int8 KV cache."""
    return arithmetic_fingerprint([_probed(create, host, biased_model(), "int8", "int8", device)])


def _probed(
    create: Creation[_Runner],
    host: _native.Device,
    checkpoint: Checkpoint,
    kv_cache_type: str,
    activations: str,
    device: str = "cpu",
) -> _Runner:
    config = EngineConfig(
        "probe",
        context_length=NUM_BLOCKS * CpuRunner.block_size,
        kv_cache_tokens=NUM_BLOCKS * CpuRunner.block_size,
        max_num_sequences=1,
        max_batch_tokens=PROMPT_LENGTH,
        kv_cache_type=kv_cache_type,
        activations=activations,
        device=device,
    )
    return create(config, host, checkpoint, ModelSpec.from_checkpoint(checkpoint), None, lambda fraction, phase: None)


def fingerprints() -> dict[str, str]:
    """The fingerprint of each instruction set of this machine, best first."""
    return {name: fingerprint_of(_native.Device(name, 1)) for name in _native.instruction_sets()}


def _sequence_input(sequence: ScheduledSequence, requests: list[_native.SampleRequest]) -> _native.SequenceInput:
    return _native.SequenceInput(sequence.token_ids, sequence.num_computed_tokens, sequence.block_table, requests)

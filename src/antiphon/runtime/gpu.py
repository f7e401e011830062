"""The GPU runner: a checkpoint packed by the native threads, copied to a GPU, and steps of Triton kernels.

It computes the same bits as the CPU runner (docs/decisions/028-gpu.md), so an engine on a GPU and one on the CPU can
take over each other's requests. On `--device interpreter` the same kernels run in NumPy, for tests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread

import numpy as np
from numpy.typing import NDArray

from antiphon import _native
from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.errors import NotEnoughMemory
from antiphon.models.spec import ModelSpec
from antiphon.ops.triton.buffers import ProgramShape
from antiphon.ops.triton.device import Device, require_cuda
from antiphon.ops.triton.drawing import is_drawable
from antiphon.ops.triton.program import Program
from antiphon.ops.triton.sampler import SubmittedStep
from antiphon.ops.triton.tiles import TILE_ROWS
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, fingerprint_of, load_runner, probe_fingerprint
from antiphon.runtime.fingerprint import model_fingerprint
from antiphon.runtime.recorded import RecordedRunner, Requests, model_settings, sample_requests, shape_of, step_result
from antiphon.step import PENDING, DeviceMemory, LoadReport, SampleSpec, ScheduledSequence, StepPlan, StepResult

LONGEST_COMPILATION = 900.0  # seconds, of all kernels, on a machine whose cache of them is empty


def create_runner(
    config: EngineConfig, progress: memoryview | None = None, report: LoadReport = lambda fraction, phase: None
) -> GpuRunner:
    """Load `config.model` onto `config.device`; otherwise as `runtime.cpu.create_runner`.

    Raises ConfigError where the device cannot be used, NotEnoughMemory where it is too small.
    """
    if config.device != "interpreter":
        require_cuda(config.device)
    return load_runner(GpuRunner, config, progress, report)


class GpuRunner(RecordedRunner):
    """A Runner on Triton kernels."""

    looks_ahead = True

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
        self._progress = np.frombuffer(progress, np.uint64) if progress is not None else np.zeros(1, np.uint64)
        self._device = Device(config.device)
        shape = ProgramShape(**shape_of(config, spec, self.num_blocks, self.context_length))
        try:
            self._program = Program(
                self._device, host, shape, use_graphs=not config.enforce_eager, on_progress=self._note_progress
            )
            self._record(self._program, checkpoint, report)
        except MemoryError:
            raise NotEnoughMemory from None
        self._submitted: list[tuple[StepPlan, Requests, SubmittedStep]] = []

    def execute(self, plan: StepPlan) -> StepResult:
        assert not self._submitted, "a step was submitted and not collected"
        self.submit(plan)
        return self.collect()

    def submit(self, plan: StepPlan) -> None:
        requests = sample_requests(self._samplings, plan)
        sequences = [
            replace(sequence, samples=()) if of_sequence is None else sequence
            for sequence, of_sequence in zip(plan.sequences, requests, strict=True)
            if of_sequence is not None or sequence.token_ids[0] != PENDING  # else no token was drawn for it before
        ]
        drawn = [request for of_sequence in requests for request in of_sequence or ()]
        self._submitted.append((plan, requests, self._program.submit(sequences, drawn)))

    def collect(self) -> StepResult:
        plan, requests, step = self._submitted.pop(0)
        return step_result(plan, requests, self._program.collect(step))

    def may_be_pending(self, spec: SampleSpec) -> bool:
        return is_drawable(spec, self.vocab_size)

    def logits(self) -> NDArray[np.float32]:
        """The logits of the last step's last sampled rows, as many as sequences may run, float32 [rows, vocabulary]."""
        return self._program.last_logits()

    def take_fingerprints(self) -> None:
        """Compute the fingerprints that `describe` returns; before the first step.

        That of the arithmetic is the CPU's if the probe model with an int8 KV cache comes out the same on both: the
        other probe needs a KV cache that a GPU does not have. The interpreter would take minutes, and is not probed.
        """
        fingerprint = fingerprint_of(self._host)
        if not self._device.is_interpreter:
            with self._progressing():
                self.warm_up()
                ours, cpus = (
                    probe_fingerprint(create, self._host, self._config.device) for create in (GpuRunner, CpuRunner)
                )
            fingerprint = fingerprint if ours == cpus else ours
        settings = model_settings(self._config, self._spec, self._wide)
        model = model_fingerprint(self, settings)
        self._fingerprints = {"fingerprint": fingerprint, "model_fingerprint": model}

    def warm_up(self) -> None:
        """Compile kernels and capture graphs, so that no request waits for them.

        It runs steps that draw in every way for which there is a kernel, decoding steps of every bucket, and a prefill
        of the size of the largest tile. Call it before the first request: it writes to the first KV blocks.
        """
        for sampling in (SamplingParams(temperature=0.0), SamplingParams(), SamplingParams(top_p=0.9)):
            for masked in ((), (0,)):
                drawn = SampleSpec(sampling, 0, 0, masked_token_ids=masked)
                self.execute(StepPlan([ScheduledSequence(-1, [0], 0, [0], (drawn,))]))
        spec = SampleSpec(SamplingParams(temperature=0.0), 0, 0)
        for rows in self._program.bucket_rows:
            for _ in range(1 if self._config.enforce_eager else 2):  # the first compiles, the second captures
                self.execute(StepPlan([ScheduledSequence(-1 - i, [0], 0, [0], (spec,)) for i in range(rows)]))
            self.execute(StepPlan([], finished_sequence_ids=[-1 - i for i in range(rows)]))
        longest = min(max(TILE_ROWS), self._config.max_batch_tokens, self.context_length)
        blocks = list(range(-(-longest // self.block_size)))
        self.execute(StepPlan([ScheduledSequence(-1, [0] * longest, 0, blocks)]))

    @contextmanager
    def _progressing(self) -> Iterator[None]:
        """Progress is noted meanwhile: a compiler reports none. For a limited time, so that a hang is still found."""
        done = Event()

        def note() -> None:
            end = time.monotonic() + LONGEST_COMPILATION
            while not done.wait(0.5) and time.monotonic() < end:
                self._note_progress()

        thread = Thread(target=note, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def device_memory(self) -> DeviceMemory | None:
        """The GPU's memory as CUDA reports it; under MIG that of the instance. None in the interpreter."""
        memory = self._device.memory()
        return memory and DeviceMemory(*memory)

    def describe(self) -> dict[str, str | int | float]:
        return {
            **self._described(self._program.block_bytes),
            "device": self._device.name,
            "device_name": self._device.model,
            "device_uuid": self._device.uuid,
            "instruction_set": self._device.name,
            "kv_cache_type": "int8",
            "device_bytes": self._device.allocated_bytes,
        }

    def _note_progress(self) -> None:
        self._progress[0] += np.uint64(1)

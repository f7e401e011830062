"""Programs of a few operations, to look at one operation alone, and the same calls on the reference.

A program only shows the logits of its sampled rows. So inputs come in as the rows of a float32 embedding, every token
being a sequence of its own unless a test needs positions; and results go out through a head that is the identity, in
Q8_0 with codes and scales of one, which multiplies without rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tiny_models import GREEDY, stored, tensor

from antiphon import _native
from antiphon.checkpoint import Tensor
from antiphon.ops.native import NativeOps
from antiphon.ops.reference import ReferenceOps, dequantize
from antiphon.step import ScheduledSequence, StepPlan

Array = npt.NDArray[np.float32]
Model = Callable[[Any, Any], Any]  # (ops, the input rows) → logits
EPSILON = 1e-12


def identity(rows: int, columns: int) -> Any:
    """A Q8_0 tensor of ones on the diagonal, exactly."""
    codes = np.eye(rows, columns, dtype=np.int8).reshape(-1, 32)
    scales = np.ones((len(codes), 1), np.float16).view(np.uint8)
    return stored("identity", (rows, columns), "Q8_0", np.hstack([scales, codes.view(np.uint8)]).tobytes())


def one_token_each(count: int) -> StepPlan:
    """Token i as a sequence of its own, all sampled."""
    return StepPlan([ScheduledSequence(i, [i], 0, [i], (GREEDY,)) for i in range(count)])


class OpBench:
    """Runs a model of a few operations on the rows of `inputs`, natively and by the reference.

    `vocabulary` is the head's rows, at least as many as there are inputs; `heads`: query heads, KV heads, head_dim.
    """

    def __init__(
        self, inputs: Array | Tensor, vocabulary: int, *, heads: tuple[int, int, int] = (1, 1, 32), num_blocks: int = 0
    ) -> None:
        self.table = inputs if isinstance(inputs, Tensor) else _padded(inputs, vocabulary)
        self.vocabulary = vocabulary
        self.heads = heads
        self.num_blocks = num_blocks or vocabulary
        self.attention_factor = 1.0
        self.frequencies = [10_000.0 ** (-2 * i / heads[2]) for i in range(heads[2] // 2)]

    def native(
        self,
        model: Model,
        plan: StepPlan,
        instruction_set: str = "auto",
        *,
        threads: int = 1,
        wide: bool = False,
        kv: str = "int8",
        before: Sequence[StepPlan] = (),
    ) -> Array:
        """Logits of the plan's sampled rows, [rows, vocabulary], after the steps `before` it."""
        num_heads, num_kv_heads, head_dim = self.heads
        device = _native.Device(instruction_set, threads)
        shape = _native.ProgramShape(
            max_tokens=max(step.num_tokens for step in (*before, plan)),
            max_sequences=max(len(step.sequences) for step in (*before, plan)),
            vocabulary=self.vocabulary,
            num_layers=1,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            context_length=32 * self.num_blocks,
            num_blocks=self.num_blocks,
            kv_type=kv,
            rope_frequencies=self.frequencies,
            rope_attention_factor=self.attention_factor,
        )
        program = _native.Program(device, shape, None)
        ops = NativeOps(device, program, attended_width=num_heads * head_dim, epsilon=EPSILON, wide_activations=wide)
        table = _native.StoredMatrix(self.table.read(), self.table.type, *self.table.shape)  # unchecked, unlike a load
        model(ops, ops.embed(table))
        for step in (*before, plan):
            program.run([native_input(sequence) for sequence in step.sequences])
        return program.last_logits(self.vocabulary)

    def gpu(
        self, model: Model, plan: StepPlan, *, wide: bool = False, before: Sequence[StepPlan] = (), **division: Any
    ) -> Array:
        """The same on the GPU's kernels, in the interpreter; `division`: of the work among programs."""
        from antiphon.ops.triton.interpreter import use_interpreter

        use_interpreter()
        from antiphon.ops.triton.buffers import ProgramShape
        from antiphon.ops.triton.device import Device
        from antiphon.ops.triton.program import Program

        num_heads, num_kv_heads, head_dim = self.heads
        host = _native.Device("auto", 1)
        shape = ProgramShape(
            max_tokens=max(step.num_tokens for step in (*before, plan)),
            max_sequences=max(len(step.sequences) for step in (*before, plan)),
            vocabulary=self.vocabulary,
            num_layers=1,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            context_length=32 * self.num_blocks,
            num_blocks=self.num_blocks,
            rope_frequencies=self.frequencies,
            rope_attention_factor=self.attention_factor,
        )
        program = Program(Device("interpreter"), host, shape, **division)
        ops = NativeOps(host, program, attended_width=num_heads * head_dim, epsilon=EPSILON, wide_activations=wide)
        table = _native.StoredMatrix(self.table.read(), self.table.type, *self.table.shape)
        model(ops, ops.embed(table))
        for step in (*before, plan):
            samples = [sample for sequence in step.sequences for sample in sequence.samples]
            program.run(step.sequences, [_native.SampleRequest(_native.SequenceSampling(), 0) for _ in samples])
        return program.last_logits()

    def reference(self, model: Model, plan: StepPlan) -> Array:
        num_heads, num_kv_heads, _ = self.heads
        ops = ReferenceOps(
            num_layers=1,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            rope_frequencies=self.frequencies,
            rope_attention_factor=self.attention_factor,
            epsilon=EPSILON,
            num_blocks=self.num_blocks,
            block_size=32,
        )
        ops.begin(plan)
        logits: Array = model(ops, ops.embed(dequantize(self.table)))
        return logits


def _padded(inputs: Array, rows: int) -> Tensor:
    padded = np.zeros((rows, inputs.shape[1]), np.float32)
    padded[: len(inputs)] = inputs
    return tensor("inputs", padded)


def native_input(sequence: ScheduledSequence) -> _native.SequenceInput:
    requests = [_native.SampleRequest(_native.SequenceSampling(), 0) for _ in sequence.samples]
    return _native.SequenceInput(sequence.token_ids, sequence.num_computed_tokens, sequence.block_table, requests)


def ones(width: int) -> Any:
    return tensor("ones", np.ones(width, np.float32))


def show(ops: Any, x: Any, width: int, vocabulary: int) -> Any:
    """x's sampled rows, divided by their root mean square, as logits."""
    return ops.logits(
        ops.rms_norm(ops.sampled_rows(x), ops.vector(ones(width))), ops.matrix([identity(vocabulary, width)])
    )


def integer_rows(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Whole numbers that quantize without rounding: every group of 32 reaches 127."""
    codes = rng.integers(-127, 128, (rows, columns)).astype(np.float32)
    codes[:, ::32] = 127.0
    return codes


def normed(rows: Sequence[Any] | Array) -> npt.NDArray[np.float64]:
    """Rows divided by their root mean square, in float64."""
    values = np.asarray(rows, np.float64)
    return values / np.sqrt(np.mean(values**2, axis=1, keepdims=True))

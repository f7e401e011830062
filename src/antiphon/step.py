"""The interface between scheduler and runner: the runner gets a StepPlan and returns a StepResult. A leaf.

A sequence has *known* tokens and *computed* tokens. For each scheduled sequence, a plan says which known tokens to
compute now. There are no phases: prefill, a chunk of it, decoding and resuming differ only in the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from antiphon.request import SamplingParams, TokenLogprobs


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """How to draw the token after a computed one of a sequence.

    A runner may cache what it derives from `sampling` and `history`: both are the same objects in every step of a
    sequence, and `history` only grows at its end. A different object replaces what was cached.
    """

    sampling: SamplingParams
    choice_index: int
    position: int  # of the token to draw, counted from the first generated one; determines the random numbers
    masked_token_ids: SequenceOf[int] = ()  # must not be drawn (end-of-sequence before min_tokens)
    # All known tokens, and the number of prompt tokens among them; only set if `sampling.needs_history`.
    history: SequenceOf[int] = ()
    num_prompt_tokens: int = 0
    # Tokens that are computed in this step and may turn out otherwise; for this draw they come after `history`.
    drafted: SequenceOf[int] = ()
    # Replaces that of `sampling` for the same tokens.
    step_logit_bias: Mapping[int, float] = field(default_factory=dict)
    # One bit per token, the lowest first, in words of 32: whether the grammar allows it. Tokens beyond the last bit are
    # not allowed. Without any bits, every token is allowed.
    token_bitmask: bytes = b""

    @property
    def logit_bias(self) -> Mapping[int, float]:
        """The biases of this step."""
        return {**self.sampling.logit_bias, **self.step_logit_bias}


PENDING = -1  # in place of a token that the step before draws, and that nobody knows yet


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """The part of one sequence that this step computes."""

    sequence_id: int
    token_ids: list[int]  # the known tokens to compute, in order, or PENDING alone; at least one
    num_computed_tokens: int  # the position of the first of `token_ids`
    block_table: list[int]  # KV block of positions [i * block_size, (i + 1) * block_size)
    # How to draw what follows each of the last tokens here, in order; none where the chunk ends before all of those.
    samples: SequenceOf[SampleSpec] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Everything a runner needs for one step.

    Between steps a runner keeps the KV blocks' contents. It may also keep how each sequence samples (`SampleSpec`),
    until the sequence is among the finished ones.
    """

    sequences: list[ScheduledSequence]
    finished_sequence_ids: list[int] = field(default_factory=list)  # since the last plan; they are not used again

    @property
    def num_tokens(self) -> int:
        return sum(len(sequence.token_ids) for sequence in self.sequences)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A token drawn for one sequence, or why none could be drawn."""

    sequence_id: int
    token_id: int = -1
    logprobs: TokenLogprobs | None = None
    error: str | None = None  # for example NaN in this row of logits; other rows are not affected


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step: one entry for each SampleSpec, in the plan's order."""

    sampled: list[SampledToken] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of a device that has its own, in bytes. All processes that use the device are counted."""

    used: int
    total: int


LoadReport = Callable[[float, str], None]  # the fraction loaded so far, and what is being loaded


class StepByStep:
    """Submits and collects the steps of a runner that computes while its caller waits."""

    looks_ahead = False

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._results: list[StepResult] = []

    def may_be_pending(self, spec: SampleSpec) -> bool:
        return False

    def submit(self, plan: StepPlan) -> None:
        self._results.append(self._runner.execute(plan))

    def collect(self) -> StepResult:
        return self._results.pop(0)


@runtime_checkable
class AheadRunner(Protocol):
    """What a runner has, too, whose device computes while the next step is prepared."""

    @property
    def looks_ahead(self) -> bool:
        """Whether a plan may be submitted before the plan before it is collected."""
        ...

    def may_be_pending(self, spec: SampleSpec) -> bool:
        """Whether the token that is drawn by `spec` may be PENDING in the next plan.

        It may not if it is only known when its step is collected.
        """
        ...

    def submit(self, plan: StepPlan) -> None:
        """Begin a step, after those that were submitted before. Tokens of the plan may be PENDING."""
        ...

    def collect(self) -> StepResult:
        """Wait for the first step that was submitted and not collected."""
        ...


class Runner(Protocol):
    """Executes plans on one device. It owns weights and KV blocks, and knows nothing about requests or scheduling."""

    num_blocks: int  # KV blocks
    block_size: int  # tokens per block
    vocab_size: int
    context_length: int  # the maximum number of tokens of a sequence
    eos_token_ids: tuple[int, ...]  # tokens that end a sequence

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute one step. Blocks; called from the engine's own thread."""
        ...

    def describe(self) -> dict[str, str | int | float]:
        """The settings chosen at start: instruction set, threads, formats, sizes in bytes.

        `fingerprint` and `model_fingerprint` are hashes of what the runner computes (`runtime.fingerprint`). Without
        them, requests move to and from its engine without a comparison.
        """
        ...

    def device_memory(self) -> DeviceMemory | None:
        """The memory of the device now; None if it computes in the machine's memory."""
        ...

    def close(self) -> None:
        """Release threads and memory."""
        ...

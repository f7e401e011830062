"""What runners on a CPU and on a GPU share: a model recorded into a program, and the way into it and out of it.

Both record the same forward pass through `ops.native`, keep how each sequence samples, and turn outcomes into a
StepResult.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from antiphon import _native
from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.models.dense import forward, load_weights
from antiphon.models.spec import ModelSpec
from antiphon.ops.native import NativeOps, RecordedProgram
from antiphon.ops.native_sampling import Samplings
from antiphon.quantization import wide_activations
from antiphon.request import TokenLogprobs
from antiphon.step import LoadReport, SampledToken, SampleSpec, ScheduledSequence, StepPlan, StepResult

Requests: TypeAlias = list[list[_native.SampleRequest] | None]  # of each sequence; see `sample_requests`


class Outcome(Protocol):
    """A token that a program has drawn, as `_native.SampleOutcome`."""

    @property
    def token_id(self) -> int: ...
    @property
    def error(self) -> str | None: ...
    @property
    def logprob(self) -> float: ...
    @property
    def top_token_ids(self) -> Sequence[int]: ...
    @property
    def top_logprobs(self) -> Sequence[float]: ...


class RecordedRunner:
    """The part of a runner that does not depend on where its program runs."""

    block_size: int = _native.BLOCK_TOKENS

    def __init__(self, config: EngineConfig, host: _native.Device, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """`host`: threads and native kernels."""
        self.num_blocks = config.kv_cache_tokens // self.block_size
        self.context_length = min(config.context_length, spec.context_length, self.num_blocks * self.block_size)
        self.vocab_size = spec.vocab_size
        self.eos_token_ids = checkpoint.tokenizer.eos_token_ids
        self._config, self._host, self._spec = config, host, spec
        self._samplings = Samplings()
        self._wide = wide_activations(config, checkpoint)
        self._fingerprints: dict[str, str] = {}
        self._weight_bytes: dict[str, int] = {}  # by format

    def _record(self, program: RecordedProgram, checkpoint: Checkpoint, report: LoadReport) -> NativeOps:
        """Pack the weights, and record the forward pass into a program."""
        ops = NativeOps(
            self._host,
            program,
            attended_width=self._spec.num_heads * self._spec.head_dim,
            epsilon=self._spec.rms_norm_eps,
            wide_activations=self._wide,
        )
        weights = load_weights(ops, checkpoint, self._spec, lambda done: report(done, "packing weights"))
        forward(ops, weights)
        self._weight_bytes = ops.bytes_by_format
        return ops

    def _described(self, block_bytes: int) -> dict[str, str | int | float]:
        """What `describe` says of any device. `block_bytes`: of a KV block, all layers."""
        return {
            **self._fingerprints,
            "threads": self._host.threads,
            "weight_format": "+".join(sorted(self._weight_bytes)),
            "weight_bytes": sum(self._weight_bytes.values()),
            "activations": "int16" if self._wide else "int8",
            "kv_cache_bytes": self.num_blocks * block_bytes,
            "kv_cache_tokens": self.num_blocks * self.block_size,
        }

    def close(self) -> None:
        """Nothing to do: the process that ends gives its memory back."""


def shape_of(config: EngineConfig, spec: ModelSpec, num_blocks: int, context_length: int) -> dict[str, Any]:
    """The sizes that programs of both kinds need, as arguments of their ProgramShape."""
    return {
        "max_tokens": max(config.max_batch_tokens, config.max_num_sequences),
        "max_sequences": config.max_num_sequences,
        "vocabulary": spec.vocab_size,
        "num_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "num_kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "context_length": context_length,
        "num_blocks": num_blocks,
        "rope_frequencies": spec.rope_frequencies(min(config.context_length, spec.context_length)),
        "rope_attention_factor": spec.rope_attention_factor,
    }


def model_settings(config: EngineConfig, spec: ModelSpec, wide: bool) -> tuple[str, ...]:
    """What changes a model's bits beside its weights, for `model_fingerprint`."""
    longest = min(config.context_length, spec.context_length)
    return (config.kv_cache_type, str(wide), str((spec.rope_frequencies(longest), spec.rope_attention_factor)))


def sample_requests(samplings: Samplings, plan: StepPlan) -> Requests:
    """How to draw the tokens of each of the plan's sequences; None for one whose numbers are too large for C++."""
    samplings.forget(plan.finished_sequence_ids)
    requests: Requests = []
    for sequence in plan.sequences:
        try:
            requests.append([samplings.request(sequence.sequence_id, spec) for spec in sequence.samples])
        except (TypeError, OverflowError):  # costs its own request alone
            requests.append(None)
    return requests


def step_result(plan: StepPlan, requests: Requests, outcomes: Sequence[Outcome]) -> StepResult:
    """The outcomes, one for each request, as the scheduler takes them."""
    drawn, sampled = iter(outcomes), []
    for sequence, of_sequence in zip(plan.sequences, requests, strict=True):
        if of_sequence is None:
            message = "A sampling parameter of this request is too large to compute with."
            sampled.append(SampledToken(sequence.sequence_id, error=message))
        else:
            sampled += [_sampled_token(sequence, spec, next(drawn)) for spec in sequence.samples]
    return StepResult(sampled)


def _sampled_token(sequence: ScheduledSequence, spec: SampleSpec, outcome: Outcome) -> SampledToken:
    if outcome.error is not None:
        return SampledToken(sequence.sequence_id, error=outcome.error)
    logprobs = None
    if spec.sampling.num_logprobs is not None:
        logprobs = TokenLogprobs(outcome.logprob, list(outcome.top_token_ids), list(outcome.top_logprobs))
    return SampledToken(sequence.sequence_id, outcome.token_id, logprobs)

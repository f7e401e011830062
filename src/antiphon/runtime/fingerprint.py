"""The fingerprint of an engine's arithmetic: a hash over a small, fixed computation.

Equal fingerprints mean that two engines compute the same bits: a stream can move from one to the other and stays what
it would have been. The computation runs two tiny models (`probe_models`) through the engine's own kernels: products in
every weight format, norms, rotary positions, attention over two segments in both types of KV cache, activations, the
head, and draws of every kind with log-probabilities. It takes some milliseconds and runs when an engine starts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from antiphon.request import SamplingParams
from antiphon.runtime.probe_models import SETTINGS, random_bytes
from antiphon.step import Runner, SampledToken, SampleSpec, ScheduledSequence, StepPlan

EXPECTED = "7c78332cfd6ef80c"  # of this version, on every x86-64 processor
PROMPT_LENGTH = 270  # more than a segment of attention (256 positions)
NUM_BLOCKS = 10  # of 32 tokens: what the prompt and the answers need
_DIGITS = 16  # hexadecimal, of the hash
_NUM_TOKENS = 3  # generated in each way
_MODEL_PROMPT = 8  # tokens

SAMPLINGS = (
    SamplingParams(temperature=0.0, num_logprobs=4),
    SamplingParams(temperature=1.25, seed=1, num_logprobs=0),
    SamplingParams(temperature=0.75, top_p=0.875, seed=2, num_logprobs=2),
    SamplingParams(temperature=1.5, top_k=20, min_p=0.0625, seed=3, repetition_penalty=1.25, presence_penalty=0.5),
)


class ProbedRunner(Runner, Protocol):
    """A Runner that also returns logits."""

    def logits(self) -> NDArray[np.float32]:
        """The logits of the last step's last sampled rows, [rows, vocabulary]."""
        ...


def arithmetic_fingerprint(runners: Iterable[ProbedRunner]) -> str:
    """The hash of what `runners`, each with one of the probe models loaded, compute; 16 hexadecimal digits."""
    digest = sha256()
    for runner in runners:
        for part in _computed(runner):
            digest.update(part)
        runner.close()
    return digest.hexdigest()[:_DIGITS]


def model_fingerprint(runner: ProbedRunner, settings: Iterable[str]) -> str:
    """The hash of the logits that a loaded model computes for a fixed prompt; 16 hexadecimal digits.

    All weights have a part in it, as they are computed with, so that equal fingerprints mean the same model with the
    same quantization, however it was stored. `settings` are hashed too: what changes bits of longer sequences only.
    It takes as long as one step, and writes to the first KV block.
    """
    length = min(_MODEL_PROMPT, runner.context_length, runner.block_size)
    token_ids = [(7919 * place + 1) % runner.vocab_size for place in range(length)]
    spec = SampleSpec(SamplingParams(temperature=0.0), 0, 0)
    runner.execute(StepPlan([ScheduledSequence(-1, token_ids, 0, [0], (spec,))]))
    digest = sha256(_bytes(runner))
    runner.execute(StepPlan([], finished_sequence_ids=[-1]))
    for setting in settings:
        digest.update(b"\0" + setting.encode())
    return digest.hexdigest()[:_DIGITS]


def prompt() -> list[int]:
    """The fixed prompt of the probe models."""
    raw = random_bytes(0, 2 * PROMPT_LENGTH).view("<u2")
    return [int(value) % SETTINGS["vocab_size"] for value in raw]


def _computed(runner: ProbedRunner) -> Iterator[bytes]:
    """The bytes of all results: a prompt at once, then answers drawn in several ways."""
    token_ids, table = prompt(), list(range(NUM_BLOCKS))[::-1]
    for sequence_id, sampling in enumerate(SAMPLINGS):
        known = list(token_ids)
        for position in range(_NUM_TOKENS):
            start = 0 if sequence_id + position == 0 else len(known) - 1  # the prompt is computed once
            spec = SampleSpec(sampling, 0, position, history=known, num_prompt_tokens=PROMPT_LENGTH)
            plan = StepPlan([ScheduledSequence(sequence_id, known[start:], start, table, (spec,))])
            (sampled,) = runner.execute(plan).sampled
            yield _bytes(runner)
            yield _packed(sampled)
            known.append(sampled.token_id)


def _bytes(runner: ProbedRunner) -> bytes:
    return runner.logits().astype("<f4").tobytes()


def _packed(sampled: SampledToken) -> bytes:
    """A drawn token and its log-probabilities."""
    parts = [struct.pack("<i", sampled.token_id)]
    if sampled.logprobs is not None:
        scores = sampled.logprobs
        parts.append(struct.pack(f"<{1 + len(scores.top_logprobs)}f", scores.logprob, *scores.top_logprobs))
        parts.append(struct.pack(f"<{len(scores.top_token_ids)}i", *scores.top_token_ids))
    return b"".join(parts)

"""A runner without a model, for tests and for measuring everything around the kernels.

Owns an imitation of a KV cache: it stores each computed token at the slot that its block table names, and reads them
all back to draw the next one, so a wrong table, a lost block or a stale prefix hit shows as wrong output or a failed
assertion. The token drawn depends on nothing but the sequence's known tokens and, above temperature zero, its seed,
choice and position. A strong bias decides, as it would with a model, and grammars are followed. Tokens are printable
bytes where the vocabulary has them. `FakeSettings` orders faults. Nothing here may know scheduling.
"""

from __future__ import annotations

import os
import signal
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from antiphon.config import EngineConfig, FakeSettings
from antiphon.errors import CheckpointError
from antiphon.request import TokenLogprobs
from antiphon.step import PENDING, DeviceMemory, SampledToken, SampleSpec, ScheduledSequence, StepPlan, StepResult

_ALPHABET = b" etaoinshrdlucmfwypvbgkjqxz.,\n"  # what it writes, where the vocabulary reaches that far
_DEFAULT_KV_TOKENS = 1 << 16
_DECISIVE = 10.0  # its logits lie closer together than this, so the token of such a bias is the one that comes
_TOKEN_BYTES = 4


def fake_token(known: Sequence[int], spec: SampleSpec, settings: FakeSettings) -> int:
    """The token that follows `known`: the whole model, and what tests compare with."""
    return _draw(_pack(known), spec, settings)


class FakeRunner:
    """A Runner whose KV blocks hold token ids."""

    def __init__(self, config: EngineConfig) -> None:
        self._settings = settings = config.fake_settings
        if settings.refuse_to_load:
            raise CheckpointError(settings.refuse_to_load)
        time.sleep(settings.load_seconds)
        self.block_size = settings.block_size
        self.num_blocks = max(1, (config.kv_cache_tokens or _DEFAULT_KV_TOKENS) // self.block_size)
        self.vocab_size = settings.vocab_size
        self.context_length = settings.context_length
        self.eos_token_ids: tuple[int, ...] = (settings.eos_token_id,) if settings.eos_token_id >= 0 else ()
        self._block_bytes = self.block_size * _TOKEN_BYTES
        self._slots = bytearray(self.num_blocks * self._block_bytes)

    def execute(self, plan: StepPlan) -> StepResult:
        if duration := self._settings.step_seconds + self._settings.token_seconds * plan.num_tokens:
            time.sleep(duration)
        self._check_writers(plan)
        for sequence in plan.sequences:
            self._suffer(sequence.token_ids)
            self._write(sequence)
        return StepResult([token for sequence in plan.sequences for token in self._sample_all(sequence)])

    def device_memory(self) -> DeviceMemory | None:
        return DeviceMemory(*self._settings.gpu_memory) if self._settings.gpu else None

    def describe(self) -> dict[str, str | int | float]:
        gpu = {"device": "cuda:0", "device_name": "Fake GPU", "device_uuid": self._settings.gpu}
        arithmetic = f"fake-{os.getpid()}" if self._settings.own_arithmetic else "fake"
        return {
            "runner": "fake",
            "kv_tokens": self.num_blocks * self.block_size,
            "fingerprint": arithmetic,
            "model_fingerprint": "fake",
            **(gpu if self._settings.gpu else {}),
        }

    def close(self) -> None:
        self._slots = bytearray()

    def _check_writers(self, plan: StepPlan) -> None:
        """A block that a sequence writes is in no other table of the plan: shared blocks are read-only."""
        writers: dict[int, int] = {}
        for sequence in plan.sequences:
            first = sequence.num_computed_tokens
            last = first + len(sequence.token_ids) - 1
            for block in sequence.block_table[first // self.block_size : last // self.block_size + 1]:
                assert block not in writers, f"block {block} is written by two sequences"
                writers[block] = sequence.sequence_id
        for sequence in plan.sequences:
            for block in sequence.block_table:
                assert writers.get(block, sequence.sequence_id) == sequence.sequence_id, f"block {block} is not private"

    def _suffer(self, token_ids: list[int]) -> None:
        """The ordered faults that end the whole process."""
        if self._settings.die_on in token_ids:
            os.kill(os.getpid(), signal.SIGKILL)
        while self._settings.hang_on in token_ids:
            time.sleep(60)
        if self._settings.raise_on in token_ids:
            raise RuntimeError(f"told to raise on token {self._settings.raise_on}")

    def _write(self, sequence: ScheduledSequence) -> None:
        assert sequence.token_ids, "a scheduled sequence computes at least one token"
        assert max(sequence.token_ids) < self.vocab_size
        for position, token_id in enumerate(sequence.token_ids, start=sequence.num_computed_tokens):
            block = sequence.block_table[position // self.block_size]
            slot = block * self._block_bytes + position % self.block_size * _TOKEN_BYTES
            self._slots[slot : slot + _TOKEN_BYTES] = token_id.to_bytes(_TOKEN_BYTES, "little")

    def _sample_all(self, sequence: ScheduledSequence) -> Iterator[SampledToken]:
        known, count = self._read(sequence) if sequence.samples else b"", len(sequence.samples)
        for number, spec in enumerate(sequence.samples, start=1):
            yield self._sample(sequence, known[: len(known) - (count - number) * _TOKEN_BYTES], spec)

    def _sample(self, sequence: ScheduledSequence, known: bytes, spec: SampleSpec) -> SampledToken:
        if spec.history:
            assert known == _pack([*spec.history, *spec.drafted]), (
                "the blocks do not hold the tokens that the scheduler knows"
            )
        if self._settings.fail_on >= 0 and self._settings.fail_on in memoryview(known).cast("I"):
            return SampledToken(sequence.sequence_id, error="the model's output was not a number")
        token_id = _draw(known, spec, self._settings)
        if token_id == self._settings.stop_on:
            os.kill(os.getpid(), signal.SIGSTOP)
        return SampledToken(sequence.sequence_id, token_id, _logprobs(token_id, spec, self.vocab_size))

    def _read(self, sequence: ScheduledSequence) -> bytes:
        """All tokens of a sequence, as its blocks hold them."""
        end = (sequence.num_computed_tokens + len(sequence.token_ids)) * _TOKEN_BYTES
        starts = (block * self._block_bytes for block in sequence.block_table)
        return b"".join(self._slots[start : start + self._block_bytes] for start in starts)[:end]


class AheadFakeRunner(FakeRunner):
    """A fake runner that takes a step before the last one is collected."""

    looks_ahead = True

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._drawn: dict[int, int] = {}  # by the last step, for each sequence whose token may be pending
        self._results: list[StepResult] = []

    def may_be_pending(self, spec: SampleSpec) -> bool:
        """As on a GPU, which leaves the rest to the host."""
        sampling = spec.sampling
        return sampling.num_logprobs is None and not (sampling.needs_history or spec.logit_bias or spec.token_bitmask)

    def submit(self, plan: StepPlan) -> None:
        known = [
            replace(
                sequence,
                token_ids=[self._drawn[sequence.sequence_id] if id == PENDING else id for id in sequence.token_ids],
            )
            for sequence in plan.sequences
        ]
        result = self.execute(StepPlan(known, plan.finished_sequence_ids))
        pending = {
            sequence.sequence_id
            for sequence in plan.sequences
            if all(self.may_be_pending(spec) for spec in sequence.samples)
        }
        drawn = (token for token in result.sampled if token.sequence_id in pending)
        self._drawn = {token.sequence_id: max(0, token.token_id) for token in drawn}
        self._results.append(result)

    def collect(self) -> StepResult:
        return self._results.pop(0)


def _pack(token_ids: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(token_ids)}I", *token_ids)


def _draw(known: bytes, spec: SampleSpec, settings: FakeSettings) -> int:
    token_id, bias = max(spec.logit_bias.items(), key=lambda item: item[1], default=(0, 0.0))
    allowed = _allowed(spec, settings.vocab_size)
    if bias >= _DECISIVE and token_id not in spec.masked_token_ids and (token_id in allowed or not spec.token_bitmask):
        return token_id
    if script := settings.script or _echo(known, spec, settings):
        token_id = script[spec.position % len(script)]
        if token_id in allowed or not (allowed or token_id in spec.masked_token_ids):
            return token_id
    digest = zlib.crc32(known)
    if spec.sampling.temperature > 0:
        digest = zlib.crc32(struct.pack("<QQQ", spec.sampling.seed, spec.choice_index, spec.position), digest)
    if allowed:
        return Random(digest).choice(allowed)  # noqa: S311  # a checksum alone would choose alike for like seeds
    while True:
        digest = zlib.crc32(digest.to_bytes(4, "little"))  # also spreads the digest: the last token is not its low byte
        token_id = _token_of(digest, settings)
        if token_id not in spec.masked_token_ids:
            return token_id


def _echo(known: bytes, spec: SampleSpec, settings: FakeSettings) -> tuple[int, ...]:
    """What an answer repeats of its prompt, with the end of sequence after it; nothing if it repeats nothing."""
    begin, end = settings.echo
    if begin < 0:
        return ()
    prompt = memoryview(known).cast("I")[: len(known) // _TOKEN_BYTES - spec.position].tolist()
    if begin not in prompt:
        return ()
    part = prompt[len(prompt) - prompt[::-1].index(begin) :]
    return (*(part[: part.index(end)] if end in part else part), settings.eos_token_id)


def _allowed(spec: SampleSpec, vocab_size: int) -> list[int]:
    """The tokens that a grammar leaves, if there is one; each is as likely as the others."""
    ids = [8 * at + bit for at, byte in enumerate(spec.token_bitmask) if byte for bit in range(8) if byte >> bit & 1]
    return [id for id in ids if id < vocab_size and id not in spec.masked_token_ids]


def _token_of(digest: int, settings: FakeSettings) -> int:
    if settings.eos_odds and digest % settings.eos_odds == 0:
        return settings.eos_token_id
    pick = digest >> 8
    return _ALPHABET[pick % len(_ALPHABET)] if settings.vocab_size > max(_ALPHABET) else pick % settings.vocab_size


def _logprobs(token_id: int, spec: SampleSpec, vocab_size: int) -> TokenLogprobs | None:
    """Made up, but a distribution that never rises down the list."""
    if spec.sampling.num_logprobs is None:
        return None
    top = [(token_id + rank) % vocab_size for rank in range(min(spec.sampling.num_logprobs, vocab_size))]
    return TokenLogprobs(-0.5, top, [-0.5 - rank for rank in range(len(top))])

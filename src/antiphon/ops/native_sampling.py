"""How sequences sample, as the native program keeps it: registered once, then told of each new token once.

A step passes on only what changes from step to step. What a sequence registered is replaced when its SampleSpec holds
other objects, and dropped when the sequence has finished. This module sees the compiled one, like `ops.native`.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from antiphon import _native
from antiphon.request import SamplingParams
from antiphon.step import SampleSpec


@dataclass(slots=True)
class _Registered:
    sampling: SamplingParams
    choice_index: int
    history: SequenceOf[int]
    native: _native.SequenceSampling
    num_counted: int = 0  # tokens of the history

    def is_of(self, spec: SampleSpec) -> bool:
        return (
            self.sampling is spec.sampling
            and self.choice_index == spec.choice_index
            and self.history is spec.history
            and self.num_counted <= len(self.history)
        )

    def count(self, num_prompt_tokens: int) -> None:
        """Count the tokens that are known since the last step."""
        prompt_end = max(self.num_counted, min(num_prompt_tokens, len(self.history)))
        self.native.count(self.history[self.num_counted : prompt_end], generated=False)
        self.native.count(self.history[prompt_end:], generated=True)
        self.num_counted = len(self.history)


class Samplings:
    """The sequences that sample, by id."""

    def __init__(self) -> None:
        self._registered: dict[int, _Registered] = {}

    def __len__(self) -> int:
        return len(self._registered)

    def request(self, sequence_id: int, spec: SampleSpec) -> _native.SampleRequest:
        """How to draw one token.

        Raises TypeError or OverflowError for a number that C++ cannot hold.
        """
        registered = self._registered.get(sequence_id)
        if registered is None or not registered.is_of(spec):
            native = _native_sampling(spec.sampling, spec.choice_index)
            registered = _Registered(spec.sampling, spec.choice_index, spec.history, native)
            self._registered[sequence_id] = registered
        native = registered.native
        if spec.sampling.needs_history:
            registered.count(spec.num_prompt_tokens)
            native = _counted(spec) if spec.drafted else native
        return _native.SampleRequest(
            native,
            spec.position,
            masked_token_ids=spec.masked_token_ids,
            logit_bias=spec.step_logit_bias,
            token_bitmask=spec.token_bitmask,
        )

    def forget(self, sequence_ids: Iterable[int]) -> None:
        """Drop finished sequences; ids that never sampled are ignored."""
        for sequence_id in sequence_ids:
            self._registered.pop(sequence_id, None)


def _counted(spec: SampleSpec) -> _native.SequenceSampling:
    """A sampling that counts the drafted tokens too, for one draw: those of the sequence cannot be taken back."""
    native = _native_sampling(spec.sampling, spec.choice_index)
    native.count(spec.history[: spec.num_prompt_tokens], generated=False)
    native.count([*spec.history[spec.num_prompt_tokens :], *spec.drafted], generated=True)
    return native


def _native_sampling(sampling: SamplingParams, choice_index: int) -> _native.SequenceSampling:
    return _native.SequenceSampling(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        choice_index=choice_index,
        num_logprobs=-1 if sampling.num_logprobs is None else sampling.num_logprobs,
        logit_bias=sampling.logit_bias,
    )

"""How many tokens a step may compute, so that a long prompt never freezes the others' streams.

Owns a small model of this machine, learned from every step: seconds ≈ fixed + per_token · tokens, least squares with
exponentially fading weights. The budget is between what the running streams need and `max_batch_tokens`, chosen so that
the predicted step stays under the target while somebody waits for a next token, or behind another's prompt. Nothing
here knows sequences; since results do not depend on how a prompt is cut, wrong guesses cost time, never correctness.
"""

from __future__ import annotations

_MEMORY = 0.9  # weight of the past, per step
_HICCUP = 3.0  # a step is believed up to so many times its prediction; the machine may have been busy elsewhere
_INERTIA = 64.0  # tokens²: how much the steps' sizes must vary before they outweigh the slope known so far
_ALONE = 4.0  # how many times the target a step may take while nobody waits: a newcomer would wait for its end
_REACH = 2  # never budget for more than so many times the largest step measured


class StepCosts:
    """Learns what steps cost on this machine."""

    def __init__(self) -> None:
        self._mean_tokens = 0.0
        self._mean_seconds = 0.0
        self._variance = 0.0  # of tokens
        self._covariance = 0.0  # of tokens and seconds
        self._largest = 0  # tokens in a measured step
        self.seconds_per_token = 0.0

    @property
    def is_known(self) -> bool:
        """Whether a step was measured."""
        return self._largest > 0

    @property
    def fixed_seconds(self) -> float:
        """What a step costs before its first token."""
        return max(0.0, self._mean_seconds - self.seconds_per_token * self._mean_tokens)

    def predict(self, num_tokens: int) -> float:
        """Seconds that a step of so many tokens will take."""
        return self.fixed_seconds + self.seconds_per_token * num_tokens

    def observe(self, num_tokens: int, seconds: float) -> None:
        """Learn from a step that was computed."""
        if not self._largest:  # the first: count it all as the tokens' cost, which errs towards small steps
            self._mean_tokens, self._mean_seconds = float(num_tokens), seconds
            self.seconds_per_token = seconds / num_tokens
        else:
            self._learn(num_tokens, min(seconds, _HICCUP * self.predict(num_tokens)))
        self._largest = max(self._largest, num_tokens)

    def _learn(self, num_tokens: int, seconds: float) -> None:
        """Fade the past, add the new point; steps of one size tell nothing about the slope, which then stays."""
        off_tokens, off_seconds = num_tokens - self._mean_tokens, seconds - self._mean_seconds
        new = 1 - _MEMORY
        self._mean_tokens += new * off_tokens
        self._mean_seconds += new * off_seconds
        self._variance = _MEMORY * (self._variance + new * off_tokens**2)
        self._covariance = _MEMORY * (self._covariance + new * off_tokens * off_seconds)
        evidence = self._covariance + _INERTIA * self.seconds_per_token
        self.seconds_per_token = max(0.0, evidence / (self._variance + _INERTIA))


class StepBudget(StepCosts):
    """Learns what steps cost and decides how large the next one may be."""

    def __init__(self, max_batch_tokens: int, target_step_seconds: float, *, min_prefill_tokens: int = 16) -> None:
        super().__init__()
        self._max_batch_tokens = max_batch_tokens
        self._target = target_step_seconds
        self._min_prefill_tokens = min_prefill_tokens

    def tokens(self, num_decoding: int, num_prefilling: int = 1) -> int:
        """The budget of a step in which `num_decoding` sequences wait for their next token, those included.

        Where a prompt is computed alone, a step may be four times as long: large enough to lose no speed.
        """
        if not self._target:
            return self._max_batch_tokens
        if not num_decoding and num_prefilling <= 1:
            return max(self._affordable(_ALONE * self._target), min(self._min_prefill_tokens, self._max_batch_tokens))
        affordable = min(self._affordable(self._target), _REACH * self._largest)
        return min(self._max_batch_tokens, max(affordable, num_decoding + self._min_prefill_tokens))

    def _affordable(self, seconds: float) -> int:
        if self.seconds_per_token <= 0:
            return self._max_batch_tokens
        return int(min((seconds - self.fixed_seconds) / self.seconds_per_token, self._max_batch_tokens))

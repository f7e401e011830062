"""A large key bias costs no fidelity: KL divergence from float32 on seeded models (benchmarks/key_biases.py)."""

from __future__ import annotations

import numpy as np
import pytest
from biased_models import biased_model, mean_divergence

from antiphon.ops import key_bias


@pytest.mark.parametrize("activations", ["int8", "int16"])
@pytest.mark.parametrize(("length", "num_pairs"), [(30, 4), (300, 4), (300, 16), (600, 4)])
def test_a_key_bias_costs_no_fidelity(activations: str, length: float, num_pairs: int) -> None:
    """Within what rounding costs the same model without the bias, or little more."""
    without = mean_divergence(biased_model(0.0), activations)
    assert mean_divergence(biased_model(length, num_pairs), activations) <= 1.5 * without


def test_a_key_bias_that_stays_in_the_cache_costs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above would notice."""
    monkeypatch.setattr(key_bias, "KEPT_ENERGY", np.inf)
    without = mean_divergence(biased_model(0.0), "int16")
    assert mean_divergence(biased_model(300), "int16") > 20 * without

#!/usr/bin/env python3
"""What large key biases cost: mean KL divergence from float32 on seeded Qwen2 models, as a table.

    python benchmarks/key_biases.py

Each bias has a length, shared by so many pairs of dimensions. The models, and what is compared, are in
tests/helpers/biased_models.py. The last column is how the server runs; the one before keeps the whole bias in the int8
cache (docs/decisions/014-key-biases.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from biased_models import biased_model, mean_divergence  # noqa: E402  # from the tests' folder

from antiphon.ops import key_bias  # noqa: E402

CASES = [(0, 4), (30, 4), (100, 4), (300, 4), (300, 16), (600, 4)]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    titles = ["length", "pairs", "activations", "f16 cache", "int8, bias in the cache", "int8, large pairs left out"]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for length, num_pairs in CASES:
        for activations in ("int8", "int16"):
            figures = [f"{value:.6f}" for value in _figures(length, num_pairs, activations)]
            print("| " + " | ".join([str(length), str(num_pairs), activations, *figures]) + " |", flush=True)


def _figures(length: float, num_pairs: int, activations: str) -> list[float]:
    checkpoint, kept_energy = biased_model(length, num_pairs), key_bias.KEPT_ENERGY
    figures = [mean_divergence(checkpoint, activations, "f16")]
    for key_bias.KEPT_ENERGY in (np.inf, kept_energy):
        figures.append(mean_divergence(checkpoint, activations))
    return figures


if __name__ == "__main__":
    main()

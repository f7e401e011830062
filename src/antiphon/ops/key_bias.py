"""Which part of K's bias an int8 KV cache leaves out (docs/decisions/014-key-biases.md).

Rounding errs in proportion to a key's length. Where a bias makes keys much longer than the product W·x is, the error
drowns what distinguishes one key from another. So the pairs of dimensions with the largest biases are left out of the
cache, and attention adds their share of the scores in float32. Each pair costs some arithmetic for every query and key,
so no more are left out than needed, and none where the bias is small.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# The energy of what stays of a bias is at most this part of the energy that the product is expected to have: rounding
# errs by at most a quarter more than without any bias.
KEPT_ENERGY = 0.5


def bias_to_leave_out(bias: Array, product_energy: Array) -> Array:
    """The bias of the keys with all but the values to leave out set to zero; same shape.

    `bias`: [kv_heads, head_dim]. `product_energy`: [kv_heads], the expected squared length of W·x in each head. Rotary
    positions turn dimensions i and i + head_dim / 2 together, so they are left out together.
    """
    half = bias.shape[1] // 2
    energies = bias[:, :half] ** 2 + bias[:, half:] ** 2  # [kv_heads, pairs]
    left_out = np.zeros_like(bias)
    for head, (energy, product) in enumerate(zip(energies, product_energy, strict=True)):
        order = np.argsort(-energy, kind="stable")
        whole = math.fsum(energy)  # exact, unlike NumPy's sums, whose order of additions is its own business
        kept = whole - np.concatenate([[0.0], np.cumsum(energy[order])])  # with the first 0, 1, 2 … left out
        count = int(np.argmax(kept <= KEPT_ENERGY * product + 1e-9 * whole))
        for pair in order[:count]:
            left_out[head, [pair, pair + half]] = bias[head, [pair, pair + half]]
    return left_out

"""Tests of the GPU's kernels need Triton and PyTorch.

They import them inside of fixtures and tests, so that a process that only collects them does not.
"""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") and find_spec("torch") else ["test_*.py"]

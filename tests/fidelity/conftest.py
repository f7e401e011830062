"""Tests against other arithmetic need PyTorch and `transformers`.

They import them inside of fixtures and tests, so that a process that only collects them does not.
"""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]

"""How long tests wait for what must happen: much longer than it takes, as a failure is all that such a wait decides."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 600.0  # seconds; a busy machine has taken more than 60 for a start, and more than 120 for 400 tokens


def wait_until(condition: Callable[[], bool], complaint: str) -> None:
    """Wait for something that must come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)

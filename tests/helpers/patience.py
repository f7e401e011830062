"""How long tests wait for what must happen: much longer than it takes, as a failure is all that such a wait decides."""

from __future__ import annotations

PATIENCE = 300.0  # seconds; a start that takes one has taken more than 60 on a busy machine

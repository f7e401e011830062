"""Moves system messages into user turns, for models that do better without a system prompt.

R1's publisher advises to put all instructions into the user's turn, and its template drops all system messages except
the last. Clients send system messages anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def folded(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with each system message at the start of the user turn that follows it, before a blank line.

    A system message that no user turn follows goes to the end.
    """
    turns: list[dict[str, Any]] = []
    waiting: list[str] = []  # contents of the system messages since the last user turn
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user":
            turns.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            turns.append(dict(message))
    return turns + [{"role": "system", "content": content} for content in waiting]

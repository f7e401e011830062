"""Antiphon serves a small reasoning model to many users at once, on an ordinary machine.

`antiphon.Engine` runs the model inside a Python program, without a server. It is imported on first use, because it
needs everything that the server needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from antiphon.offline.engine import Engine

__all__ = ["Engine", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "Engine":
        return import_module("antiphon.offline.engine").Engine
    raise AttributeError(f"module 'antiphon' has no attribute {name!r}")

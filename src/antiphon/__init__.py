"""Antiphon serves a small reasoning model to many people at once, on the machine they already have.

`antiphon.Engine` is the same for a program, without a server; it is imported when it is first asked for, since it needs
all that serving needs.
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

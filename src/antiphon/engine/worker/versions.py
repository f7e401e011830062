"""The versions of what an engine's answers may depend on, as `Ready` reports them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from antiphon import __version__

_PACKAGES = ("numpy", "llguidance")  # what reads weights, and what matches grammars


def library_versions() -> dict[str, str]:
    """Names and versions; packages that are not installed are left out."""
    versions = {"antiphon": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions

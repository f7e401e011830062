"""The layout block of docs/architecture.md and the tree name the same files and folders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "antiphon"
LAYOUT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Layout")[1].split("```")[1]

_PATH = re.compile(r"(?<![\w./*-])[\w.*-]+(?:/[\w.*-]+)*(?:\.(?:\*|pyi?|cpp|h)\b|\.\*|/(?!\w))")


def named() -> set[str]:
    """Files and folders in the block: a folder ends with a slash, and `*` matches any characters."""
    return set(_PATH.findall(LAYOUT))


def top_level() -> list[str]:
    """What stands directly in the package: modules, and folders with modules in them."""
    files = [path.name for path in PACKAGE.iterdir() if path.suffix in (".py", ".pyi") and "__" not in path.name]
    folders = [f"{path.name}/" for path in PACKAGE.iterdir() if any(path.glob("*.py"))]
    return sorted(files + folders)


@pytest.mark.parametrize("name", top_level())
def test_everything_at_the_top_of_the_package_is_in_the_layout(name: str) -> None:
    assert name in named()


@pytest.mark.parametrize("name", sorted(named()))
def test_everything_in_the_layout_exists(name: str) -> None:
    found = [path for path in ROOT.glob(name) if path.is_dir() or not name.endswith("/")]
    for folder in ("src", "native", "tests", "benchmarks"):
        found += [path for path in (ROOT / folder).rglob(name) if path.is_dir() or not name.endswith("/")]
    assert found

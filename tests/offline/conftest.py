"""A tiny model for tests without a server: the fake runner behind the real engine process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_checkpoints import CHATML_TEMPLATE, R1_TEMPLATE, metadata, write_gguf

from antiphon import Engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", metadata(template=CHATML_TEMPLATE))


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "r1.gguf", metadata(template=R1_TEMPLATE))


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    """An engine for the tests that do not disturb it."""
    with Engine(tiny, fake=True) as engine:
        yield engine

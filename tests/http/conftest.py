"""What the tests here share: one server for each module of tests that do not disturb it, and a small model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from http_server import Served, serving
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server whose model answers with letters that depend on the prompt and never ends by itself."""
    async with serving(tmp_path_factory.mktemp("model")) as server:
        yield server


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The path of a small model, for `antiphon serve`."""
    return str(write_gguf(tmp_path / "small.gguf", metadata(template=CHATML_TEMPLATE)))

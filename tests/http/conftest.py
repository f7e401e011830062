"""One server for each module of tests that do not disturb it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from http_server import Served, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server whose model answers with letters that depend on the prompt and never ends by itself."""
    async with serving(tmp_path_factory.mktemp("model")) as server:
        yield server

"""Two servers for the tests that do not disturb them, and a proxy of each kind in front of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from http_server import serving
from reverse_proxies import MAX_BODY_BYTES, PROXIES, Pair, Proxy, proxied

from antiphon.api_keys import read_admin_keys


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Two servers that take 10 ms for a token."""
    folder = tmp_path_factory.mktemp("model")
    settings = {
        "fake": {"step_seconds": 0.01},
        "max_body_bytes": MAX_BODY_BYTES,
        "hang_timeout": 300.0,
        "admin_keys": read_admin_keys(["sk-a-key-for-operators"]),  # so there are admin routes
    }
    async with serving(folder, **settings) as one, serving(folder, **settings) as other:
        yield one, other


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of both servers."""
    urls = [server.url for server in pair]
    with proxied(request.param, urls, tmp_path_factory.mktemp("proxy"), max_body_bytes=MAX_BODY_BYTES) as running:
        yield running

"""A text at which the tokenizer's library panics costs its sender a 400, on every route that cuts text into tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from http_server import Served, serving
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

pytestmark = pytest.mark.asyncio(loop_scope="module")

HARD = "a" * 1000  # takes the expression below more steps than the library allows


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server whose tokenizer cuts text by an expression that backtracks."""
    async with serving(tmp_path_factory.mktemp("model")) as server:
        steps = [Split(Regex("(?:a|aa)+b|[^a]+"), "isolated"), ByteLevel(False, use_regex=False)]
        server.text.tokenizer._encoder.pre_tokenizer = Sequence(steps)
        yield server


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": HARD}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": HARD}], "stream": True}),
        ("/v1/completions", {"prompt": HARD}),
        ("/v1/responses", {"input": HARD}),
        ("/v1/messages", {"messages": [{"role": "user", "content": HARD}], "max_tokens": 5}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": HARD}]}),
        ("/tokenize", {"prompt": HARD}),
    ],
)
async def test_a_panic_of_the_regex_library_is_the_senders_error(served: Served, path: str, body: dict[str, Any]):
    reply = await served.http.post(path, json={"model": "tiny", **body})
    assert reply.status_code == 400
    assert reply.headers["content-type"].startswith("application/json")
    assert "cannot cut this text into tokens (Onig: Regex search error" in reply.json()["error"]["message"]
    assert (await served.chat(max_tokens=2)).status_code == 200

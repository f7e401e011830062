"""A whole front for tests (`running_server`), with clients for it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from patience import PATIENCE
from running_server import Running, running_server
from scrapes import check_accounts, samples

_TLS = ssl.create_default_context()  # not used over plain HTTP; making one for each client takes a tenth of a start


@dataclass(frozen=True)
class Served(Running):
    """A server that is up, and the ways to talk to it."""

    http: httpx2.AsyncClient
    openai: AsyncOpenAI

    async def chat(self, content: Any = "Hello", **fields: Any) -> httpx2.Response:
        """Ask one question."""
        body = {"messages": [{"role": "user", "content": content}], **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def complete(self, prompt: Any = "Hello", **fields: Any) -> httpx2.Response:
        """Have a text continued."""
        return await self.http.post("/v1/completions", json={"prompt": prompt, **fields})

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics."""
        return samples((await self.http.get("/metrics")).text)

    async def until_metric(self, name: str, value: float) -> None:
        """Wait for a sample to reach `value`; accounts close a moment after the engine's."""
        async with asyncio.timeout(PATIENCE):
            while (await self.metrics()).get(name, 0.0) != value:  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.01)

    async def check_accounts(self) -> None:
        """received = refused + accepted; accepted = finished + aborted + failed + running."""
        check_accounts(await self.metrics())


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Served]:
    """A running server, as `running_server` makes it with these options, and clients for it."""
    async with running_server(folder, **options) as running:
        url = running.url
        async with (
            httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, verify=_TLS) as http,
            DefaultAsyncHttpxClient(verify=_TLS) as official,
            AsyncOpenAI(
                base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE, http_client=official
            ) as openai,
        ):
            yield Served(url, running.engine, running.server, running.text, http, openai)


async def until(condition: Any) -> None:
    """Wait for something that must come true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0.01)


def events(text: str) -> list[Any]:
    """The payloads of a stream; checks the framing and that [DONE] ends it, once."""
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert [line for line in lines if line == "data: [DONE]"] == lines[-1:]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def joined(chunks: Iterable[Any], field: str = "content", index: int = 0) -> str:
    """The text of one choice of a chat stream."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(field, "") for choice in choices)


def named_events(text: str) -> list[tuple[str, Any]]:
    """The events of a stream that names them; checks that each payload says the same name."""
    found = []
    for block in filter(None, text.split("\n\n")):
        name, data = (line.partition(": ") for line in block.split("\n"))
        assert (name[0], data[0]) == ("event", "data")
        payload = json.loads(data[2])
        assert payload["type"] == name[2]
        found.append((name[2], payload))
    return found

"""A whole front for tests: tiny tokenizer, real engine process with the fake runner, real uvicorn on a free port."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from patience import PATIENCE
from scrapes import check_accounts, samples
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

from antiphon.api.served_model import ServedModel
from antiphon.config import EngineConfig, FakeSettings, ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.formats import open_checkpoint
from antiphon.http.administration import Administration
from antiphon.http.app import create_app
from antiphon.http.page import FOLDER
from antiphon.http.server import Server, listen, url_of
from antiphon.text import TextModel
from antiphon.tracing import Tracer

MODEL = "tiny"
_TLS = ssl.create_default_context()  # not used over plain HTTP; making one for each client takes a tenth of a start


@dataclass(frozen=True)
class Served:
    """A server that is up, and the ways to talk to it."""

    url: str
    engine: EngineClient
    server: Server
    text: TextModel
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


def text_model(folder: Path, template: str, tool_call_parser: str = "auto") -> TextModel:
    """The tiny vocabulary with a chat template."""
    checkpoint = open_checkpoint(write_gguf(folder / "tiny.gguf", metadata(template=template)))
    return TextModel.from_checkpoint(checkpoint, tool_call_parser=tool_call_parser)


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    template: str = CHATML_TEMPLATE,
    script: str = "",
    defaults: dict[str, float] | None = None,
    wait: bool = True,
    grammars: bool = False,
    fake: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    engines: int = 1,
    max_num_sequences: int = 64,
    max_batch_tokens: int = 512,
    prefill_chunk: int | None = None,
    page_folder: Path = FOLDER,
    administration: Administration | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tracer: Tracer | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """A running server. `script` is what the fake model always says, over and over; ends with its end of sequence.

    `fake` and `engine` are further settings of the fake runner and of the engines.

    Each request is computed by itself, a token a step, unless a test says otherwise: tests count both. An engine that a
    busy machine delays is not taken for one that hangs.
    """
    text = text_model(folder, template, settings.get("tool_call_parser", "auto"))
    token_ids = tuple(text.tokenizer.encode_with_control(script))
    eos = text.tokenizer.eos_token_ids[0]
    fake_settings = FakeSettings(
        **{"vocab_size": text.tokenizer.vocab_size, "eos_token_id": eos, "script": token_ids} | (fake or {})
    )
    usual = {"share_equal_requests": "off", "hang_timeout": PATIENCE}
    config = ServerConfig(host=host, port=port, model_name=MODEL, **usual | settings)
    engine_config = EngineConfig(
        model="",
        engines=engines,
        max_num_sequences=max_num_sequences,
        max_batch_tokens=max_batch_tokens,
        fake=True,
        fake_settings=fake_settings,
        **(engine or {}),
    )
    if prefill_chunk is not None:
        engine_config = replace(engine_config, prefill_chunk=prefill_chunk)
    vocabulary = text.vocabulary if grammars else None  # without, the engine starts faster
    client = EngineClient(engine_config, config, vocabulary)
    app = create_app(
        ServedModel(MODEL, text, defaults or {}),
        client,
        config,
        page_folder=page_folder,
        administration=administration,
        tracer=tracer,
    )
    server = Server(app, client, config)
    listener = listen(host, port)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await client.start()
    try:
        if wait:
            async with asyncio.timeout(PATIENCE):
                await client.wait_ready()
        url = url_of(listener)
        async with (
            httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, verify=_TLS) as http,
            DefaultAsyncHttpxClient(verify=_TLS) as official,
            AsyncOpenAI(
                base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE, http_client=official
            ) as openai,
        ):
            yield Served(url, client, server, text, http, openai)
    finally:
        server.should_exit = server.force_exit = True
        await client.drain(0)
        await client.stop()
        await task
        text.close()


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

"""A whole front for tests: tiny tokenizer, real engine process with the fake runner, real uvicorn on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patience import PATIENCE
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


@dataclass(frozen=True)
class Running:
    """A server that is up."""

    url: str
    engine: EngineClient
    server: Server
    text: TextModel


def text_model(folder: Path, template: str, tool_call_parser: str = "auto") -> TextModel:
    """The tiny vocabulary with a chat template."""
    checkpoint = open_checkpoint(write_gguf(folder / "tiny.gguf", metadata(template=template)))
    return TextModel.from_checkpoint(checkpoint, tool_call_parser=tool_call_parser)


@asynccontextmanager
async def running_server(
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
) -> AsyncIterator[Running]:
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
        yield Running(url_of(listener), client, server, text)
    finally:
        server.should_exit = server.force_exit = True
        await client.drain(0)
        await client.stop()
        await task
        text.close()

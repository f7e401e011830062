"""Models and settings of engines are reloaded under streams: each text is what it would have been, or nothing changes.

The server runs in this process as `antiphon serve` starts it, with real engine processes and the fake runner, whose
answers depend on every token before them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
from fronts import until
from patience import PATIENCE
from processes import children, is_gone
from rich.console import Console
from tiny_checkpoints import CHATML_TEMPLATE, R1_TEMPLATE, metadata, write_gguf
from tiny_folders import write_random_folder

from antiphon.api_keys import read_admin_keys
from antiphon.commands.serving import running
from antiphon.config import EngineConfig, FakeSettings, ServerConfig
from antiphon.loading.model import resolve_model

ADMIN = {"authorization": "Bearer an-admin-key-123456"}
STREAMS = 4
COMPARED = 400  # tokens of each text
STEP_SECONDS = 0.1  # so that a stream goes on for minutes and costs little


def write_model(path: Path, template: str) -> Path:
    """A checkpoint with a context that is long enough for streams that never end by themselves."""
    fields = metadata(template=template) | {"qwen2.context_length": 4096}
    return write_gguf(path, fields)


@dataclass
class Operator:
    """A running server, its settings as they are read again, and a client."""

    engine: EngineConfig
    settings: ServerConfig
    http: httpx2.AsyncClient = field(init=False)

    def reread(self) -> tuple[EngineConfig, ServerConfig]:
        return self.engine, self.settings

    async def reload(self) -> dict[str, Any]:
        """The record of a reload, after its end."""
        operation = (await self.http.post("/admin/reload", headers=ADMIN)).json()
        async with asyncio.timeout(PATIENCE):
            while operation.get("status") == "running":
                await asyncio.sleep(0.01)
                path = f"/admin/operations/{operation['id']}"
                operation = (await self.http.get(path, headers=ADMIN)).json()
        return dict(operation)

    async def engines(self) -> list[dict[str, Any]]:
        return list((await self.http.get("/admin/engines", headers=ADMIN)).json()["data"])

    async def until_engines(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE):
            while len(found := await self.engines()) != count:  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.01)
        return found

    async def answer(self, number: int, max_tokens: int = COMPARED) -> tuple[str, str]:
        """The model's name, and the whole text of an answer."""
        reply = await self.http.post("/v1/chat/completions", json=question(number, max_tokens))
        body = reply.json()
        message = body["choices"][0]["message"]
        return body["model"], (message.get("reasoning_content") or "") + (message.get("content") or "")


def question(number: int, max_tokens: int, **fields: Any) -> dict[str, Any]:
    content = f"Question {number} of many"
    return {
        "messages": [{"role": "user", "content": content}],
        "temperature": 0.7,
        "seed": number,
        "max_tokens": max_tokens,
        "loop_guard": False,
        **fields,
    }


@asynccontextmanager
async def operated(
    model: Path, *, step_seconds: float = STEP_SECONDS, device: str = "cpu", **settings: Any
) -> AsyncIterator[Operator]:
    fake = FakeSettings(step_seconds=step_seconds)
    engine = EngineConfig(model=str(model), fake=True, fake_settings=fake, kv_cache_tokens=32768, device=device)
    server = ServerConfig(port=0, admin_keys=read_admin_keys(["an-admin-key-123456"]), drain_timeout=1.0, **settings)
    operator = Operator(engine, server)
    console = Console(file=(model.parent / "log").open("a"))
    found = resolve_model(str(model), console)
    async with (
        running(found, engine, server, console, None, operator.reread) as started,
        httpx2.AsyncClient(base_url=started.url, timeout=PATIENCE, trust_env=False) as http,
    ):
        operator.http = http
        yield operator


@dataclass
class Stream:
    """A streamed answer as far as it has been read."""

    model: str = ""
    text: str = ""
    error: Any = None

    async def read(self, http: httpx2.AsyncClient, number: int) -> None:
        body = question(number, 4000, stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    self.take(json.loads(line.removeprefix("data: ")))

    def take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self.model = chunk["model"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            self.text += (delta.get("reasoning_content") or "") + (delta.get("content") or "")


@asynccontextmanager
async def streaming(operator: Operator) -> AsyncIterator[list[Stream]]:
    """Streams that have begun, and go on for longer than the block takes."""
    streams = [Stream() for _ in range(STREAMS)]
    tasks = [asyncio.create_task(stream.read(operator.http, n)) for n, stream in enumerate(streams)]
    await until(lambda: all(len(stream.text) > 10 for stream in streams))
    yield streams
    assert not any(task.done() for task in tasks), "a stream ended too early for the test"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def go_on(streams: list[Stream]) -> None:
    """Wait until each stream has got more."""
    before = [len(stream.text) for stream in streams]
    await until(lambda: all(len(stream.text) > length + 10 for stream, length in zip(streams, before, strict=True)))


def begins(whole: str, part: str) -> bool:
    """Whether a text that was cut is the beginning of another; it may have been cut inside a character."""
    return len(part) > 10 and whole.startswith(part.rstrip("\ufffd"))


async def alone(model: Path, max_tokens: int = COMPARED) -> list[tuple[str, str]]:
    """What each question is answered with by a server that is never reloaded, and whose steps take no time."""
    async with operated(model, step_seconds=0.0) as operator:
        return [await operator.answer(number, max_tokens) for number in range(STREAMS)]


async def test_streams_go_on_with_the_same_text_while_settings_of_the_engines_and_the_model_are_replaced(tmp_path):
    model = write_model(tmp_path / "first.gguf", CHATML_TEMPLATE)
    other = write_model(tmp_path / "second.gguf", R1_TEMPLATE)
    expected, expected_of_other = await alone(model), await alone(other, 40)
    async with operated(model) as operator:
        (first,) = await operator.engines()
        async with streaming(operator) as streams:
            # Another setting, the same bits: the streams move, and the old engine stops.
            operator.engine = replace(operator.engine, max_num_sequences=32)
            operation = await operator.reload()
            assert operation["status"] == "done", operation
            assert operation["reload"]["engines"] == "replaced"
            changes = {each["setting"]: each["after"] for each in operation["reload"]["changed"]}
            assert changes == {"max-num-seqs": "32"}
            (second,) = await operator.until_engines(1)
            assert second["id"] != first["id"]
            assert second["generation"] == first["generation"] + 1
            assert second["running"] + second["waiting"] == STREAMS
            await until(lambda: is_gone(first["pid"]))
            await go_on(streams)

            # Another model: the streams stay on their engine, new requests get the new one.
            operator.engine = replace(operator.engine, model=str(other))
            operation = await operator.reload()
            assert (operation["status"], operation["reload"]["model"]) == ("done", "second")
            old, new = await operator.engines()
            assert old["pid"] == second["pid"]
            assert old["running"] + old["waiting"] == STREAMS
            assert await operator.answer(2, 40) == expected_of_other[2]
            assert expected_of_other[2][0] == "second"
            await go_on(streams)

            # The same path with another file.
            write_model(tmp_path / "third.gguf", CHATML_TEMPLATE).replace(other)
            operation = await operator.reload()
            assert operation["status"] == "done", operation
            assert [each["after"] for each in operation["reload"]["changed"]] == ["its new contents"]
            assert (await operator.http.get("/v1/models")).json()["data"][0]["id"] == "second"
            name, text = await operator.answer(3, 40)
            assert name == "second"
            assert begins(expected[3][1], text)
            await go_on(streams)
        for (name, text), stream in zip(expected, streams, strict=True):
            assert stream.error is None
            assert stream.model == name == "first"
            assert stream.text[: len(text)] == text[: len(stream.text)]
        (last,) = await operator.until_engines(1)  # the others had nothing more to do
        assert last["generation"] == new["generation"] + 1
        assert (await operator.http.get("/metrics")).text.count("antiphon_build_info{") == 1


async def test_what_cannot_be_loaded_is_refused_and_the_old_engine_goes_on(tmp_path):
    model = write_model(tmp_path / "first.gguf", CHATML_TEMPLATE)
    async with operated(model) as operator:
        (engine,) = await operator.engines()
        async with streaming(operator) as streams:
            # No room: settings that need no engines are in effect all the same.
            operator.engine = replace(operator.engine, kv_cache_tokens=1 << 40)
            operator.settings = replace(operator.settings, max_body_bytes=300, model_name="x")
            operation = await operator.reload()
            assert operation["status"] == "failed"
            assert "would take" in operation["error"]["message"]
            told = operation["reload"]
            assert told["engines"] == "refused"
            assert [each["setting"] for each in told["changed"]] == ["max-body-bytes"]
            assert {each["setting"] for each in told["not_changed"]} == {"kv-cache-tokens", "model-name"}
            assert (await operator.http.post("/v1/completions", json={"prompt": "x" * 301})).status_code == 413
            operator.settings = replace(operator.settings, max_body_bytes=4 << 20, model_name="")

            # Engines that cannot load it.
            fake = replace(operator.engine.fake_settings, refuse_to_load="the fake runner is told to")
            operator.engine = replace(operator.engine, kv_cache_tokens=16384, fake_settings=fake)
            operation = await operator.reload()
            assert operation["status"] == "failed"
            assert "the fake runner is told to" in operation["error"]["message"]

            # A damaged file: nothing at all is changed.
            damaged = tmp_path / "damaged.gguf"
            damaged.write_bytes(model.read_bytes()[:2000])
            operator.engine = replace(operator.engine, model=str(damaged))
            operator.settings = replace(operator.settings, max_body_bytes=300)
            refused = await operator.http.post("/admin/reload", headers=ADMIN)
            operation = refused.json() if "status" in refused.json() else await latest(operator)
            assert "reload" not in operation
            assert (await operator.http.post("/v1/completions", json={"prompt": "x" * 301})).status_code != 413

            assert [each["pid"] for each in await operator.engines()] == [engine["pid"]]
            await go_on(streams)


async def latest(operator: Operator) -> dict[str, Any]:
    return dict((await operator.http.get("/admin/engines", headers=ADMIN)).json()["operation"])


async def test_a_name_changes_without_new_engines_and_nothing_is_left_open(tmp_path):
    model = write_model(tmp_path / "first.gguf", CHATML_TEMPLATE)
    async with operated(model, step_seconds=0.0) as operator:
        (engine,) = await operator.engines()
        before = used()
        for name in ("one", "two", "three"):
            operator.settings = replace(operator.settings, model_name=name)
            operation = await operator.reload()
            assert (operation["status"], operation["reload"]["engines"]) == ("done", "kept")
            assert (await operator.answer(1, 5))[0] == name
        for count in (60, 50, 40):
            operator.engine = replace(operator.engine, max_num_sequences=count)
            assert (await operator.reload())["status"] == "done"
            (engine,) = await operator.until_engines(1)
        assert engine["generation"] == 4
        await until(lambda: used() == before)


async def test_a_gpu_has_no_room_for_new_engines_and_needs_none_for_a_name(tmp_path, monkeypatch):
    """The GPU's memory is the present engine's, so a reload that plans for it anew would always be refused."""
    monkeypatch.setattr("antiphon.loading.assembly.choose_devices", lambda *_: ("cuda:0",))
    monkeypatch.setattr("antiphon.loading.device_plan.gpu_memory", lambda device: 4 << 30)
    model = write_random_folder(tmp_path / "m", "qwen2")
    async with operated(model, step_seconds=0.0, device="cuda") as operator:
        (engine,) = await operator.engines()
        monkeypatch.setattr("antiphon.loading.device_plan.gpu_memory", lambda device: 100 << 20)
        operator.settings = replace(operator.settings, model_name="renamed")
        operation = await operator.reload()
        assert (operation["status"], operation["reload"]["engines"]) == ("done", "kept")
        operator.engine = replace(operator.engine, max_num_sequences=60)
        operation = await operator.reload()
        assert operation["status"] == "failed"
        assert "cuda:0 has memory for 0 tokens" in operation["error"]["message"]
        assert "restart the server instead" in operation["error"]["message"]
        assert (await operator.answer(1, 5))[0] == "renamed"
        assert [each["pid"] for each in await operator.engines()] == [engine["pid"]]


def used() -> tuple[int, int]:
    """Open descriptors of this process, and processes that it has started."""
    return len(os.listdir("/proc/self/fd")), len(children(os.getpid()))

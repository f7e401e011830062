"""A model's files are replaced, written to, cut short and deleted under a running engine, and the engine dies.

Real engines on small random models. What must never happen is that an answer goes on with other weights: either it is
the one that the model would have given, to the token, or it ends in an error.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fronts import check_accounts, read, until
from loads import Answer, ask, fake_config
from patience import PATIENCE
from processes import is_gone, is_stopped
from tiny_folders import write_random_folder, write_random_gguf

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.errors import CheckpointError, EngineDied
from antiphon.loading.assembly import assemble
from antiphon.loading.model import Found
from antiphon.request import GenerateRequest

CONTEXT = 1024  # tokens
SETTINGS = {"max_position_embeddings": CONTEXT}
ENGINE = {"kv_cache_tokens": 4 * CONTEXT, "threads": 1, "max_num_sequences": 8}


@pytest.fixture(params=["gguf", "folder"])
def model(request, tmp_path) -> Path:
    return write_gguf(tmp_path) if request.param == "gguf" else write_random_folder(tmp_path / "m", "qwen2", **SETTINGS)


def write_gguf(folder: Path, name: str = "m.gguf", *, seed: int = 0) -> Path:
    return write_random_gguf(folder / name, "qwen2", seed=seed, type="Q8_0", **SETTINGS)


def other(model: Path) -> Path:
    """Another model of the same shape."""
    if model.is_dir():
        return write_random_folder(model.with_name("other"), "qwen2", seed=1, **SETTINGS)
    return write_gguf(model.parent, "other.gguf", seed=1)


def files_of(model: Path) -> list[Path]:
    return sorted(model.iterdir()) if model.is_dir() else [model]


def weights_of(model: Path) -> Path:
    return model / "model.safetensors" if model.is_dir() else model


def replace_by_another(model: Path) -> None:
    for theirs, ours in zip(files_of(other(model)), files_of(model), strict=True):
        os.replace(theirs, ours)  # the fault by its name


def delete(model: Path) -> None:
    shutil.rmtree(model) if model.is_dir() else model.unlink()


def overwrite_by_another(model: Path) -> None:
    """As `cp` does: the same file, with other bytes."""
    for theirs, ours in zip(files_of(other(model)), files_of(model), strict=True):
        with ours.open("r+b") as file:
            file.write(theirs.read_bytes())
            file.truncate()


def cut_short(model: Path) -> None:
    os.truncate(weights_of(model), 4096)


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[EngineClient]:
    """A ready client as `antiphon serve` has it; afterwards nothing is left."""
    assembly = assemble(Found(model, "m"), EngineConfig(str(model), **ENGINE), ServerConfig())
    client = EngineClient(assembly.engine, ServerConfig(hang_timeout=30.0), assembly.model.text.vocabulary)
    await client.start()
    try:
        async with asyncio.timeout(PATIENCE):
            await client.wait_ready()
        yield client
    finally:
        pid = client.engine_pid
        async with asyncio.timeout(PATIENCE):
            await client.drain(0)
            await client.stop()
        assembly.model.text.close()
        assembly.checkpoint.files.close()
        assert pid is None or is_gone(pid)
        check_accounts(client.counters)


def requests(max_tokens: int = 300) -> list[GenerateRequest]:
    return [
        ask(f"r{n}", [n + 1] * (3 + n), temperature=0.8, seed=n, max_tokens=max_tokens, ignore_eos=True)
        for n in range(3)
    ]


async def answers(client: EngineClient, asked: Sequence[GenerateRequest]) -> list[Answer]:
    return list(await asyncio.gather(*(read(client.generate(request)) for request in asked)))


async def undisturbed(model: Path) -> list[Answer]:
    async with serving(model) as client:
        return await answers(client, requests())


async def stopped_in_the_middle(client: EngineClient) -> list[asyncio.Task[Answer]]:
    """The requests, each with some tokens behind it and many before it, and the engine stopped, so that they wait."""
    seen: list[str] = []
    client.subscribe(lambda event: seen.append(event.request_id))
    asked = requests()
    running = [asyncio.create_task(read(client.generate(request))) for request in asked]
    await until(lambda: all(seen.count(request.request_id) > 5 for request in asked))
    os.kill(client.engine_pid, signal.SIGSTOP)
    await until(lambda: is_stopped(client.engine_pid))
    assert not any(task.done() for task in running)
    return running


@pytest.mark.parametrize("fault", [replace_by_another, delete])
async def test_the_next_engine_loads_the_same_bytes_whatever_took_their_place(model, tmp_path, fault):
    expected = await undisturbed(model)
    async with serving(model) as client:
        running = await stopped_in_the_middle(client)
        fault(model)
        os.kill(client.engine_pid, signal.SIGKILL)
        assert await asyncio.gather(*running) == expected
        assert (client.restarts, client.counters.finished) == (1, 3)
        assert await answers(client, [ask("late", [1, 2, 3])])  # and goes on serving
    if model.exists():
        assert await undisturbed(model) != expected  # the fault did change the model


@pytest.mark.parametrize("fault", [overwrite_by_another, cut_short])
async def test_a_running_engine_does_not_notice(model, fault):
    """Everything was copied when it was loaded, the embedding too."""
    expected = await undisturbed(model)
    async with serving(model) as client:
        running = await stopped_in_the_middle(client)
        fault(model)
        os.kill(client.engine_pid, signal.SIGCONT)
        assert await asyncio.gather(*running) == expected
        assert client.restarts == 0


@pytest.mark.parametrize(
    ("fault", "what"), [(overwrite_by_another, "(was written to|now has)"), (cut_short, "now has 4,096")]
)
async def test_the_next_engine_refuses_a_file_that_changed_and_requests_end_in_an_error(model, fault, what, caplog):
    async with serving(model) as client:
        running = await stopped_in_the_middle(client)
        fault(model)
        os.kill(client.engine_pid, signal.SIGKILL)
        for ending in await asyncio.gather(*running, return_exceptions=True):
            assert isinstance(ending, EngineDied)
            assert "the server has to be restarted" in ending.message
            assert str(model) not in ending.message
        assert client.state is EngineState.FAILED
        with pytest.raises(CheckpointError, match=what):
            await client.wait_ready()
        assert (client.counters.failed, client.counters.running) == (3, 0)
    assert f"{model}" in caplog.text


# --- an embedding that is too large to be copied


@pytest.fixture
def mapped_embedding(tmp_path, monkeypatch) -> None:
    """Engines copy no embedding, however small: a module that Python imports at their start says so."""
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import antiphon.footprint\nantiphon.footprint.MAX_COPIED_EMBEDDING = -1\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    command = [sys.executable, "-P", "-c", "import antiphon.ops.native as n; print(n.MAX_COPIED_EMBEDDING)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "-1\n"


async def test_an_embedding_left_in_the_file_gives_the_same_answers(tmp_path, request):
    model = write_gguf(tmp_path)
    expected = await undisturbed(model)
    request.getfixturevalue("mapped_embedding")
    assert await undisturbed(model) == expected


async def test_embeddings_that_were_overwritten_lead_to_no_token(tmp_path, mapped_embedding):
    model = write_gguf(tmp_path)
    expected = await undisturbed(model)
    async with serving(model) as client:
        got: dict[str, list[int]] = {}
        client.subscribe(lambda event: got.setdefault(event.request_id, []).append(event.token_id))
        running = await stopped_in_the_middle(client)
        overwrite_by_another(model)
        os.kill(client.engine_pid, signal.SIGCONT)
        endings = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(ending, EngineDied) for ending in endings)
        with pytest.raises(CheckpointError, match="was written to"):
            await client.wait_ready()
    for number, answer in enumerate(expected):
        *tokens, end = got[f"r{number}"]
        assert end is None
        assert tokens == answer.token_ids[: len(tokens)]


async def test_sigbus_is_the_death_of_one_engine_and_says_why(tmp_path, mapped_embedding, caplog):
    model = write_gguf(tmp_path)
    async with serving(model) as client:
        cut_short(model)  # while nothing runs, so that the next thing to happen is that an embedding is read
        with pytest.raises(EngineDied):
            await read(client.generate(ask("a", [1, 2, 3])))
        with pytest.raises(CheckpointError, match="now has 4,096"):
            await client.wait_ready()
        assert client.restarts == 1
    assert "killed (SIGBUS): a part of a model file could not be read" in caplog.text


async def test_after_a_sigbus_without_a_change_the_next_engine_goes_on():
    """As when a disk failed for a moment."""
    client = EngineClient(fake_config(step_seconds=0.01), ServerConfig())
    await client.start()
    try:
        await client.wait_ready()
        reading = asyncio.create_task(read(client.generate(ask("a", [1, 2, 3], max_tokens=60))))
        await until(lambda: client.stats.step > 5)
        os.kill(client.engine_pid, signal.SIGBUS)
        assert len((await reading).token_ids) == 60
        assert client.restarts == 1
    finally:
        await client.stop()

"""An engine host finds a server's model on its own machine, and refuses one that is not the same."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf
from tiny_folders import write_random_folder

from antiphon.config import EngineConfig
from antiphon.engine_host.models import Models
from antiphon.errors import CheckpointError, ConfigError
from antiphon.formats import open_checkpoint
from antiphon.model_digest import Digests, named_files


def sent_by_a_front(path: Path) -> tuple[EngineConfig, dict[str, str]]:
    """What a front that serves the model sends to hosts."""
    checkpoint = open_checkpoint(path)
    digests = {name: Digests().of(file) for name, file in named_files(str(path), checkpoint.files.opened).items()}
    checkpoint.files.close()
    return EngineConfig(str(path), typed_model=str(path), threads=1), digests


@pytest.fixture(params=["a GGUF file", "a folder"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "a folder":
        write_random_folder(tmp_path / "model", "qwen2")
        return tmp_path / "model"
    write_gguf(tmp_path / "model.gguf", metadata(template=CHATML_TEMPLATE))
    return tmp_path / "model.gguf"


def hosts_models(only: Path | str = "") -> Models:
    return Models(Console(quiet=True), only=str(only), offline=True)


async def test_the_same_model_is_found_by_what_was_typed_or_where_the_host_has_it(model, tmp_path):
    config, digests = sent_by_a_front(model)
    prepared = await hosts_models().prepare(config, digests)
    assert prepared.config.model == str(model)
    assert {file.path for file in prepared.config.files} >= {str(model)} or model.is_dir()
    prepared.close()
    moved = tmp_path / "elsewhere" / "another-name"
    moved.parent.mkdir()
    model.rename(moved)
    prepared = await hosts_models(only=moved).prepare(config, digests)
    assert prepared.config.model == str(moved)
    assert all(os.fstat(file.fd).st_size == file.size for file in prepared.config.files)
    prepared.close()
    with pytest.raises(CheckpointError, match="there is no file or folder"):
        await hosts_models().prepare(config, digests)


async def test_a_model_that_differs_in_a_byte_is_refused_by_the_file_s_name(model):
    config, digests = sent_by_a_front(model)
    file = model if model.is_file() else next(iter(sorted(model.glob("*.safetensors"))))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file.name}: differs from the server's"):
        await hosts_models().prepare(config, digests)


async def test_engines_that_start_together_prepare_one_after_the_other(model, monkeypatch):
    """So that the second finds what the first has downloaded."""
    config, digests = sent_by_a_front(model)
    models = hosts_models()
    inside: list[int] = []
    prepare = models._prepare

    def watched(*arguments: object):
        inside.append(1)
        assert len(inside) == 1
        try:
            return prepare(*arguments)
        finally:
            inside.pop()

    monkeypatch.setattr(models, "_prepare", watched)
    for prepared in await asyncio.gather(*(models.prepare(config, digests) for _ in range(4))):
        prepared.close()


async def test_a_front_that_names_no_model_gets_the_host_s_or_an_error(model):
    config, digests = sent_by_a_front(model)
    nameless = replace(config, typed_model="")
    with pytest.raises(ConfigError, match="start the engine host with MODEL"):
        await hosts_models().prepare(nameless, digests)
    (await hosts_models(only=model).prepare(nameless, digests)).close()

"""One server for the tests that do not disturb it, and what every voice is told when nobody else is there."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from real_server import RealServer, real_server
from voices import VOICES, WHISPERS, Said, ask_in_turn

from antiphon.formats import open_checkpoint
from antiphon.text import TextModel, Tokenizer


@pytest.fixture(scope="session")
def tokenizer(demo_model: Path) -> Iterator[Tokenizer]:
    """The demo model's own."""
    text = TextModel.from_checkpoint(open_checkpoint(demo_model))
    yield text.tokenizer
    text.close()


@pytest.fixture(scope="session")
def server(demo_model: Path) -> Iterator[RealServer]:
    """The demo model, served as it comes."""
    with real_server(demo_model) as started:
        yield started


@pytest.fixture(scope="session")
def alone(demo_model: Path, tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> dict[str, list[Said]]:
    """The answers to one voice after another, with nothing remembered between them.

    Processes that run tests side by side share them: the first that needs them asks, the others wait and read a file.
    """
    path = tmp_path_factory.getbasetemp().parent / f"alone-{testrun_uid}.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(json.dumps({name: list(map(asdict, said)) for name, said in _ask(demo_model).items()}))
        told = json.loads(path.read_text())
    return {name: [Said(**each) for each in said] for name, said in told.items()}


def _ask(model: Path) -> dict[str, list[Said]]:
    with real_server(model, "--no-prefix-caching") as server:
        return {
            "voices": asyncio.run(ask_in_turn(server, VOICES)),
            "whispers": asyncio.run(ask_in_turn(server, WHISPERS)),
        }

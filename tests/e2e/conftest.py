"""One server for the tests that do not disturb it, and what every voice is told when nobody else is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
def alone(demo_model: Path) -> dict[str, list[Said]]:
    """The answers to one voice after another, with nothing remembered between them."""
    with real_server(demo_model, "--no-prefix-caching") as server:
        return {
            "voices": asyncio.run(ask_in_turn(server, VOICES)),
            "whispers": asyncio.run(ask_in_turn(server, WHISPERS)),
        }

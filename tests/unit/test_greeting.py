"""What `antiphon serve` prints when it is ready: where the page is, and a command to paste."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from antiphon.commands.serving import Running, _greet
from antiphon.config import ServerConfig


@pytest.mark.parametrize("has_page", [True, False])
async def test_the_greeting_says_where_the_page_is_if_there_is_one(capsys, has_page):
    stopped = asyncio.create_task(asyncio.sleep(0))
    server = Running("http://127.0.0.1:8000", "small", ready=True, stopped=stopped, has_page=has_page)
    text = io.StringIO()
    _greet(server, ServerConfig(), Console(file=text, width=200))
    lines = ["", "Serving small on http://127.0.0.1:8000  (Ctrl-C to stop)"]
    lines += ["Chat page: http://127.0.0.1:8000/"] if has_page else []
    assert text.getvalue().splitlines() == [*lines, "To try the API:", ""]
    assert capsys.readouterr().out.startswith("curl http://127.0.0.1:8000/v1/chat/completions ")
    await stopped

"""Runs `antiphon` within the test's process.

typer builds a program's commands anew for each call, which takes a tenth of a second. Here they are built once.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from antiphon.cli import app, main
from antiphon.config import EngineConfig, ServerConfig


@cache
def commands() -> Any:
    """The command `antiphon`, with its subcommands."""
    return typer.main.get_command(app)


def run_antiphon(*arguments: str, **options: Any) -> Any:
    """The result of a command: its `exit_code`, `output` and `exception`. `options`: those of typer's `invoke`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda _: commands())
        return CliRunner().invoke(app, arguments, **options)


def fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a command that fails."""
    monkeypatch.setattr(sys, "argv", ["antiphon", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return stopped.value.code, captured.err


def serve_options() -> dict[str, Any]:
    """The options of `antiphon serve` by their first name, without hidden ones."""
    command = commands().commands["serve"]
    return {p.opts[0]: p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)}


def served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[EngineConfig, ServerConfig]:
    """The settings that `serve` makes of its arguments."""
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.serving.run", lambda *settings, **_: seen.extend(settings))
    result = run_antiphon("serve", "m.gguf", *arguments)
    assert result.exit_code == 0, result.output
    return tuple(seen)

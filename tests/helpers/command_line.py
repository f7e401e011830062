"""Runs `antiphon` within the test's process.

typer builds a program's commands anew for each call, which takes a tenth of a second. Here they are built once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from antiphon.cli import app


@cache
def commands() -> Any:
    """The command `antiphon`, with its subcommands."""
    return typer.main.get_command(app)


def run_antiphon(*arguments: str, **options: Any) -> Any:
    """The result of a command: its `exit_code`, `output` and `exception`. `options`: those of typer's `invoke`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda _: commands())
        return CliRunner().invoke(app, arguments, **options)

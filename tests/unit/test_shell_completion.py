"""Shells complete commands, options, values and models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_antiphon


def completed(folder: Path, *lines: str) -> list[list[str]]:
    """What bash offers behind each line, with the script that we print."""
    (folder / "antiphon").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m antiphon "$@"\n')
    (folder / "antiphon").chmod(0o755)
    script = (
        'source <(antiphon completion bash); for line in "$@"; do COMP_LINE="$line"; COMP_POINT=${#line}; '
        '_antiphon_completion antiphon; printf "%s\n" "${COMPREPLY[@]}" "end of line"; done'
    )
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "HF_HUB_CACHE": str(folder / "hub")}
    shell = ["bash", "--norc", "-c", script, "bash", *lines]
    reply = subprocess.run(shell, capture_output=True, text=True, env=environment, check=True)
    assert reply.stderr == ""
    return [part.split("\n")[:-1] for part in reply.stdout.split("end of line\n")[:-1]]


@pytest.mark.slow
def test_bash_completes_commands_options_values_and_models(tmp_path):
    (tmp_path / "hub" / "models--org--my--model").mkdir(parents=True)
    expected = {
        "antiphon serve m --kv-cache-t": ["--kv-cache-type", "--kv-cache-tokens"],
        "antiphon serve m -np 4 --kv-cache-type ": ["int8", "f16"],
        "antiphon serve deepseek-r1:1": ["1.5b", "14b"],  # bash parts words at colons
        "antiphon pull org": ["org/my--model"],
        "antiphon batch -i in.jsonl --hub mod": ["modelscope"],
        "antiphon serve ./mod": [],  # files are the shell's own
    }
    first, *others = completed(tmp_path, "antiphon se", *expected)
    assert "serve" in first
    assert others == list(expected.values())


@pytest.mark.parametrize(("shell", "contains"), [("zsh", "compdef"), ("fish", "complete --command antiphon")])
def test_scripts_for_other_shells(shell, contains):
    assert contains in run_antiphon("completion", shell).output


def test_a_shell_that_is_not_known():
    assert run_antiphon("completion", "tcsh").exit_code == 2

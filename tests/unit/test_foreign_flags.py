"""Flags, commands and recipes of other servers: those that users of vLLM and llama.cpp type."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from command_line import commands, fail, run_antiphon, serve_options, served

from antiphon.commands.aliases import ALIASES, FILE_FLAGS, MODEL_FLAGS, SWITCHES, translate, translate_model
from antiphon.commands.foreign_commands import FOREIGN_COMMANDS
from antiphon.commands.foreign_flags import FOREIGN_FLAGS
from antiphon.config import EngineConfig, ServerConfig

SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"
BENCHMARKS = Path(__file__).parents[2] / "docs" / "benchmarks.md"


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
    result = run_antiphon("serve", "m.gguf", *recipe.split(), "--port", "9")
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
        assert run_antiphon("serve", *flags).exit_code == 0
    assert seen == ["o/r:Q8_0", "o/r/f.gguf", "o/r/f.gguf", "m.gguf"]
    assert run_antiphon("serve", "-hf").exit_code == 2
    assert run_antiphon("serve", "other", "-hf", "o/r").exit_code == 2
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
        assert isinstance(run_antiphon("batch", *arguments).exception, ZeroDivisionError)
        (model, settings), *files = seen
        assert (model, settings["context_length"]) == ("m", 9 if len(arguments) > 3 else 0)
        assert files == [Path("in"), Path("out"), Path("in")]


def test_aliases_mean_options_that_exist_and_hide_none():
    options = serve_options()
    ours = {name for parameter in options.values() for name in (*parameter.opts, *parameter.secondary_opts)}
    assert set(ALIASES.values()) <= ours
    assert not set(ALIASES) & ours


def test_what_follows_two_dashes_is_left_alone():
    assert translate(["-c", "5", "--", "-c"]) == ["--context-length", "5", "--", "-c"]

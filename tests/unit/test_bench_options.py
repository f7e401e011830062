"""The options of `antiphon bench load`: names of other tools, what is refused, and secrets that stay out of results."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import commands, run_antiphon

from antiphon.bench.about import command_without_secrets, without_secrets
from antiphon.bench.stages import Stage


def options_of(monkeypatch: pytest.MonkeyPatch, *typed: str) -> Any:
    """The options that a command line comes to."""
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.load_testing.run_load_test", lambda options, _: seen.append(options))
    result = run_antiphon("bench", *typed)
    assert result.exit_code == 0, result.output
    return seen[0]


OURS = "http://h:1 --rate 2.5 --users 8 -n 100 --input-tokens 200 --output-tokens 128"
VLLM = (
    "--backend openai-chat --base-url http://h:1 --endpoint /v1/chat/completions --dataset-name random "
    "--random-input-len 200 --random-output-len 128 --request-rate 2.5 --max-concurrency 8 --num-prompts 100 "
    "--save-result --percentile-metrics ttft,tpot"
)
WITH_EQUALS = "--host=h --port=1 --request-rate=2.5 -c 8 --num-prompts=100 --random-input-len=200 --output-len=128"
GUIDELLM = "--target http://h:1 --rate 2.5 --concurrency 8 --max-requests 100 --input-len 200 --output-len 128"


@pytest.mark.parametrize("typed", [OURS, VLLM, WITH_EQUALS, GUIDELLM], ids=["ours", "vLLM", "equals", "guidellm"])
def test_names_of_other_tools_mean_the_same(monkeypatch, typed):
    options = options_of(monkeypatch, *typed.split())
    assert (options.url, options.rate, options.users, options.requests) == ("http://h:1", "2.5", "8", 100)
    assert (options.input_tokens, options.output_tokens, options.endpoint) == (200, 128, "chat")


def test_every_option_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    command = commands().commands["bench"].commands["run"]
    options = [each for each in command.params if each.param_type_name == "option"]
    assert len(options) > 40
    for option in options:
        assert any(re.search(rf"{name}\b", text) for name in (*option.opts, *option.secondary_opts)), option.opts


def test_vllms_infinite_rate_is_all_requests_at_once_or_as_many_as_may_be(monkeypatch):
    from antiphon.commands.bench_settings import planned_stages

    (stage,) = planned_stages(options_of(monkeypatch, "h:1", "--request-rate", "inf", "--num-prompts", "40"))
    assert (stage.shape, stage.users, stage.requests) == ("users", 40, 40)
    typed = ("h:1", "--request-rate", "inf", "--num-prompts", "40", "--max-concurrency", "8")
    (stage,) = planned_stages(options_of(monkeypatch, *typed))
    assert (stage.shape, stage.users, stage.requests) == ("users", 8, 40)


@pytest.mark.parametrize("typed", [("--target",), ("--target", "h:1", "--port", "2"), ("--backend",)])
def test_addresses_as_flags_need_a_value_and_are_given_once(typed):
    assert run_antiphon("bench", *typed).exit_code == 2


@pytest.mark.parametrize(
    "typed",
    [
        ("http://h", "--api-key", "s3cret", "-H", "X-Key: s3cret", "--insecure"),
        ("http://h", "--api-key=s3cret", "--header=X-Key: s3cret", "-k"),
        ("http://h", "-HX-Key: s3cret", "-kH", "X-Key: s3cret", "-kHX-Key: s3cret", "-H=X-Key: s3cret", "-n", "5"),
    ],
)
def test_keys_are_not_written_into_the_results(typed):
    shown = without_secrets(["/usr/bin/antiphon", "bench", *typed])
    assert "s3cret" not in " ".join(shown)
    assert shown[:3] == ["antiphon", "bench", "http://h"]
    assert shown[-1] == typed[-1]


def test_a_long_command_of_a_server_is_not_taken_for_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_antiphon("bench", "compare", f"no-such-program {'x' * 300} --port {{port}}", "127.0.0.1:1")
    assert result.exit_code == 2
    assert "the server cannot be started: " in result.output


def test_keys_in_the_command_of_a_server_are_not_written_either():
    command = "antiphon serve 'my model' --api-key s3cret --admin-key=s3cret --max-batch-tokens 8 --port {port}"
    shown = "antiphon serve 'my model' --api-key *** '--admin-key=***' --max-batch-tokens 8 --port {port}"
    assert command_without_secrets(command) == shown
    assert without_secrets(["antiphon", "bench", "compare", command, "h:1"])[3:] == [shown, "h:1"]
    assert "s3cret" not in command_without_secrets("serve --port {port} --api-key 's3cret")


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (("http://me:s3cret@h",), "URL"),
        (("http://h", "--metrics-url", "http://me:s3cret@h/metrics"), "--metrics-url"),
        (("http://h", "--metrics-url", "http://[h"), "--metrics-url"),
    ],
)
def test_an_address_with_a_password_or_a_mistake_is_refused(typed, named):
    result = run_antiphon("bench", *typed)
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {named}")
    assert "s3cret" not in result.output


@pytest.mark.parametrize(
    "typed", [("h", "--users", "zero"), ("h", "--slo", "fast"), ("h", "--resume"), ("report", "/none"), ("h", "--usrs")]
)
def test_a_wrong_option_is_exit_status_2_however_it_is_found_out(typed):
    result = run_antiphon("bench", *typed)
    assert result.exit_code == 2
    assert "bench run" not in result.output  # nobody typed that


def test_help_of_load_tests_names_the_other_commands():
    text = run_antiphon("bench", "--help").output
    assert "antiphon bench compare" in text
    assert "antiphon bench report" in text


def test_stages_end_when_they_say():
    assert replace(Stage(0, "users"), requests=5).planned_seconds == 0

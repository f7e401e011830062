"""The options of `antiphon serve`: where their values come from, and that each is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import fail, serve_options, served

from antiphon.commands.aliases import ALIASES
from antiphon.config import EngineConfig, ServerConfig

SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"


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

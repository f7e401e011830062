"""Settings refuse what cannot work, and name the flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.config import EngineConfig, ServerConfig, cache_folder, listed
from antiphon.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("context_length", -1, "--context-length"),
        ("max_num_sequences", 0, "--max-num-seqs"),
        ("max_batch_tokens", 0, "--max-batch-tokens"),
        ("kv_cache_type", "int4", "--kv-cache-type"),
        ("instruction_set", "sse", "--instruction-set"),
        ("threads", -2, "--threads"),
        ("threads", 1025, "--threads"),
        ("context_length", 1, "--context-length"),
    ],
)
def test_engine_settings(field, value, flag):
    with pytest.raises(ConfigError, match=flag):
        EngineConfig(model="m", **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("port", 65536, "--port"),
        ("port", -1, "--port"),
        ("max_queued_requests", 0, "--max-queued-requests"),
        ("requests_per_minute", -1, "--requests-per-minute"),
        ("tokens_per_minute", -1, "--tokens-per-minute"),
        ("max_connections", 0, "--max-connections"),
        ("network_timeout", 0.0, "--network-timeout"),
        ("keep_alive_timeout", float("nan"), "--keep-alive-timeout"),
        ("ssl_keyfile", "key.pem", "--ssl-certfile"),
        ("allowed_origins", ("page.example",), "--allowed-origins"),
        ("allowed_origins", ("https://page.example/",), "--allowed-origins"),
        ("allowed_hosts", ("https://x",), "--allowed-hosts"),
        ("allowed_hosts", ("*",), "--allowed-hosts"),
        ("max_body_bytes", 0, "--max-body-bytes"),
        ("max_stored_responses", -1, "--max-stored-responses"),
        ("max_stored_bytes", -1, "--max-stored-bytes"),
        ("drain_timeout", 0.0, "--drain-timeout"),
        ("drain_timeout", float("nan"), "--drain-timeout"),
        ("hang_timeout", -1.0, "--hang-timeout"),
        ("log_level", "trace", "--log-level"),
        ("system_prompt", "drop", "--system-prompt"),
    ],
)
def test_server_settings(field, value, flag):
    with pytest.raises(ConfigError, match=flag):
        ServerConfig(**{field: value})


@pytest.mark.parametrize(
    ("text", "items"),
    [("", ()), ("a", ("a",)), (" a , b,", ("a", "b")), ('["a", "b,c"]', ("a", "b,c")), ("[]", ()), ("*", ("*",))],
)
def test_lists_are_parted_by_commas_or_in_json(text, items):
    assert listed("--x", text) == items


@pytest.mark.parametrize("text", ["[a]", '["a", 5]', '["a"'])
def test_a_list_that_is_none_names_its_flag(text):
    with pytest.raises(ConfigError, match="--x"):
        listed("--x", text)


def test_the_cache_folder(monkeypatch):
    monkeypatch.delenv("ANTIPHON_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/antiphon")
    monkeypatch.setenv("ANTIPHON_CACHE", "~/models")
    assert cache_folder() == Path.home() / "models"

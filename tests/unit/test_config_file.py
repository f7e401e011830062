"""`antiphon serve --config FILE`: every setting, which value wins, and what is said about a mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import commands, run_antiphon

from antiphon.cli import main


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function from a file's text and further arguments to the engine's and the server's settings."""
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.serving.run", lambda *given, **_: seen.extend(given))

    def read(text: str, *arguments: str) -> list[Any]:
        seen.clear()
        file = tmp_path / "antiphon.toml"
        file.write_text(text)
        result = run_antiphon("serve", "--config", str(file), *arguments)
        assert result.exit_code == 0, result.output
        return seen

    return read


def mistake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path, content: bytes) -> str:
    """What is said about a file."""
    file.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["antiphon", "serve", "--config", str(file)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def test_a_file_may_name_the_model_and_every_setting(settings):
    command = commands().commands["serve"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    lines = ['model = "m.gguf"']
    for option in options:
        name, default = option.opts[0].removeprefix("--"), option.default
        if name in ("config", "ssl-keyfile", "api-key-file", "admin-key-file", "help"):
            continue
        if isinstance(default, bool):
            lines.append(f"{name} = {str(not default).lower()}")
        elif isinstance(default, (int, float)):
            lines.append(f"{name} = {default / 2 if 0 < default < 1 else default + 2}")
        elif name == "peer":
            lines.append(f'{name} = ["http://10.0.0.6:8000", "http://10.0.0.7:8000"]')
        elif default is None:
            lines.append(f'{name} = ["first:0123456789-{name}", "second:1123456789-{name}"]')
        else:
            lines.append(f'{name} = "{default}"')
    engine, server = settings("\n".join(lines))
    assert engine.model == "m.gguf"
    assert engine.max_num_sequences == 66
    assert server.port == 8002
    assert server.loop_guard is False
    assert [key.name for key in server.api_keys] == ["first", "second"]
    assert (server.peers[1], server.peer_key) == ("http://10.0.0.7:8000", "0123456789-admin-key")


def test_the_command_line_comes_first_then_the_environment_then_the_file(settings, monkeypatch):
    text = 'model = "file.gguf"\nport = 1\nthreads = 1\nmax_num_seqs = 1\n'
    monkeypatch.setenv("ANTIPHON_PORT", "2")
    monkeypatch.setenv("ANTIPHON_THREADS", "2")
    engine, server = settings(text, "typed.gguf", "--port", "3")
    assert (engine.model, server.port, engine.threads, engine.max_num_sequences) == ("typed.gguf", 3, 2, 1)
    assert settings(text, "-m", "flag.gguf")[0].model == "flag.gguf"


def test_names_and_values_of_other_servers_are_accepted(settings):
    engine, server = settings('model = "m"\nmax_model_len = 99\nkv-cache-dtype = "q8_0"\nserved-model-name = "x"\n')
    assert (engine.context_length, engine.kv_cache_type, server.model_name) == (99, "int8", "x")


def test_lists_and_numbers(settings):
    _, server = settings(
        'model = "m"\nallowed-hosts = ["a", "b"]\nkeep-alive-timeout = 5\napi-key = "0123456789abcdef"'
    )
    assert server.allowed_hosts == ("a", "b")
    assert server.keep_alive_timeout == 5.0
    assert len(server.api_keys) == 1


def test_the_file_can_come_from_the_environment(settings, monkeypatch, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text("port = 5\n")
    monkeypatch.setenv("ANTIPHON_CONFIG", str(other))
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.serving.run", lambda *given, **_: seen.extend(given))
    assert run_antiphon("serve", "m").exit_code == 0
    assert seen[1].port == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"prot = 1", "there is no setting 'prot'; did you mean port?"),
        (b"max-model-length = 1", "there is no setting 'max-model-length'; did you mean max-model-len?"),
        (b"zzz = 1", "there is no setting 'zzz'; the keys are the options of `antiphon serve`, without --"),
        (b"[network]\nport = 1", "there is no setting 'network'"),
        (b"config = 'x'", "there is no setting 'config'"),
        (b"fake-engine = true", "there is no setting 'fake-engine'"),
        (b"port = '1'", "port must be a whole number"),
        (b"port = true", "port must be a whole number"),
        (b"port = [1]", "port must be a whole number"),
        (b"offline = 1", "offline must be true or false"),
        (b"drain-timeout = 'x'", "drain-timeout must be a number"),
        (b"host = 1", "host must be a string"),
        (b"api-key = [1]", "api-key must be a list of strings without commas"),
        (b"timeout = 5\nnetwork-timeout = 6", "network-timeout and another key are both network-timeout"),
        (b"port = ", "is not valid TOML"),
        (b"a = " + b"[" * 100_000, "is not valid TOML"),
        (b"\xff", "is not UTF-8 text"),
        (b"#" * (1 << 20) + b"#", "has more than 1,048,576 bytes"),
        (b"model = 'm'\nport = 70000", "port in {file} is 70000; the highest port is 65535"),
        (b"model = 'm'\nquantization = 'w5'", "quantization in {file} is 'w5'; choose one of auto, w4, w8"),
        (b"port = 1", "Missing argument 'MODEL'"),
    ],
)
def test_a_mistake_is_named_with_what_would_work(content, said, tmp_path, capsys, monkeypatch):
    file = tmp_path / "antiphon.toml"
    assert said.format(file=file) in mistake(capsys, monkeypatch, file, content)


def test_a_file_that_is_not_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["antiphon", "serve", "--config", str(tmp_path / "none.toml")])
    with pytest.raises(SystemExit):
        main()
    assert "cannot be read: No such file or directory" in " ".join(capsys.readouterr().err.split())

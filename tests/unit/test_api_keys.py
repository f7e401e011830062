"""API keys: where they come from, and that they are forgotten."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from antiphon.api_keys import MAX_KEYS, find_api_key, read_api_keys
from antiphon.errors import ConfigError

SECRET = "sk-very-secret"  # noqa: S105  # opens nothing


def file(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_keys_of_the_command_line_and_of_a_file_are_taken_together(tmp_path):
    keys = read_api_keys(
        ["one", "bob:two,three"], file(tmp_path, "\ufeff# a comment\n\n alice: four \r\nfive\neve:six:7\n")
    )
    assert [key.name for key in keys] == ["key-1", "bob", "key-3", "alice", "key-5", "eve"]
    for name, secret in zip([key.name for key in keys], ["one", "two", "three", "four", "five", "six:7"], strict=True):
        found = find_api_key(keys, secret.encode())
        assert found is not None
        assert found.name == name


def test_no_keys_are_no_keys():
    assert read_api_keys([]) == ()
    assert read_api_keys(["", " ,"]) == ()


def test_a_key_of_a_file_may_have_limits_of_its_own(tmp_path):
    lines = "a: x tokens-per-minute=5\nb: y requests-per-minute=0 tokens-per-minute=12\nz requests-per-minute=7\n"
    limits = [(key.requests_per_minute, key.tokens_per_minute) for key in read_api_keys([], file(tmp_path, lines))]
    assert limits == [(None, 5), (0, 12), (7, None)]


def test_a_key_of_a_file_may_have_a_weight(tmp_path):
    lines = "a: x weight=5 tokens-per-minute=9\nb: y\n"
    assert [key.weight for key in read_api_keys([], file(tmp_path, lines))] == [5, 1]


@pytest.mark.parametrize("presented", [b"", b"one ", b"On\xc3\xab", b"key-1", b"ONE", b"\x00", b"x" * 100_000])
def test_what_is_no_key_is_not_found(presented):
    keys = read_api_keys(["one,two"])
    assert find_api_key(keys, presented) is None
    assert find_api_key(keys, keys[0].digest) is None
    assert find_api_key(keys, keys[0].digest.hex().encode()) is None


def test_a_key_is_forgotten_once_it_is_read():
    (key,) = read_api_keys([SECRET])
    assert SECRET not in repr(key)
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in repr(key)
    assert key.digest == hashlib.sha256(SECRET.encode()).digest()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"ok\n{SECRET}\n{SECRET}\n", "the same key is used more than once"),
        (f"a: x\na: {SECRET}\n", "the same name is used more than once"),
        (f"my name: {SECRET}\n", "line 1: a key's name"),
        (f": {SECRET}\n", "line 1: a key's name"),
        (f"ok\n\nname: {SECRET} {SECRET}\n", "line 3: only requests-per-minute=N, "),
        (f"{SECRET}é\n", "line 1: a key has"),
        (f"{SECRET},{SECRET}\n", "line 1: a key has"),
        (SECRET * 50 + "\n", "line 1: a key has"),
        (SECRET.encode() + b"\xff\x00\n", "line 1: a key has"),
        (
            f"a: {SECRET} rpm=5\n",
            "line 1: only requests-per-minute=N, tokens-per-minute=N, weight=N may follow a key",
        ),
        (f"a: {SECRET} weight=0\n", "line 1: weight=0 is not possible; a weight is from 1 to 1,000"),
        (f"a: {SECRET} weight=1001\n", "line 1: weight=1001 is not possible"),
        (f"a: {SECRET} tokens-per-minute=-1\n", "line 1: only requests-per-minute=N, "),
        (f"a: {SECRET} tokens-per-minute=1e3\n", "line 1: only requests-per-minute=N, "),
        (f"a: {SECRET} tokens-per-minute={'9' * 13}\n", "line 1: only requests-per-minute=N, "),
        ("name:\n", "line 1: a key has"),
        ("# nothing\n\n", "contains no key"),
        ("", "contains no key"),
        ("#" * (1 << 20) + "\n", "1,048,576 bytes"),
        ("".join(f"k{n}\n" for n in range(MAX_KEYS + 1)), "the maximum is 1000"),
    ],
)
def test_what_cannot_be_a_key_is_refused_by_its_place_and_never_shown(tmp_path, content, says):
    with pytest.raises(ConfigError) as error:
        read_api_keys([], file(tmp_path, content))
    assert says in error.value.message
    assert error.value.message.startswith(("--api-key", "there are"))
    assert SECRET not in error.value.message


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match=r"--api-key-file .* cannot be read"):
            read_api_keys([], str(path))


@pytest.mark.parametrize("typed", ["a b", f"{SECRET} {SECRET}2", f"a\t{SECRET}", f"x,{SECRET} y", "a\nb"])
def test_a_key_with_a_blank_is_refused_and_does_not_become_two(typed):
    with pytest.raises(ConfigError, match=r"--api-key: a key (cannot contain spaces|has 1 to 512)") as error:
        read_api_keys([typed])
    assert SECRET not in error.value.message


def test_blanks_around_a_key_are_no_part_of_it():
    assert find_api_key(read_api_keys([f" {SECRET}, b:{SECRET}2 \n"]), SECRET.encode()) is not None


def test_a_short_key_is_known_to_be_one():
    keys = read_api_keys(["x" * 15, "y" * 16, "long-name-of-a-key:" + "z" * 15])
    assert [key.is_short for key in keys] == [True, False, True]

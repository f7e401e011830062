"""API keys as a server keeps them: a name, a digest, limits of its own. A leaf.

Owns the one spelling of a key on the command line, in the environment and in a file:

    [NAME:] KEY [requests-per-minute=N] [tokens-per-minute=N]

It promises that a key itself is forgotten as soon as it is read: what is kept, logged or told in an error is its name,
its place or its digest. It must not know HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from antiphon.errors import ConfigError

MAX_KEYS = 1000  # each has series of its own in the metrics, and all are compared with at every request
_MAX_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,512}")  # printable, but for blanks and commas
_LIMITS = ("requests-per-minute", "tokens-per-minute")
_LIMIT = re.compile(rf"({'|'.join(_LIMITS)})=([0-9]{{1,12}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, by its digest."""

    name: str
    digest: bytes = field(repr=False)  # SHA-256
    requests_per_minute: int | None = None  # 0: no limit; None: what the server says for every key
    tokens_per_minute: int | None = None


def read_api_keys(typed: Sequence[str], file: str = "") -> tuple[ApiKey, ...]:
    """The keys that were typed, several in one text separated by commas, and those of a file.

    Raises:
        ConfigError: one that cannot be a key, a name or key that is there twice; says where, never what.
    """
    entries = [(text, "--api-key") for each in typed for text in re.split(r"[,\s]+", each) if text]
    keys = [_parse(text, where, number) for number, (text, where) in enumerate([*entries, *_lines(file)], start=1)]
    if len(keys) > MAX_KEYS:
        raise ConfigError(f"there are {len(keys)} API keys; the most is {MAX_KEYS}")
    for what, seen in (("name", [key.name for key in keys]), ("key", [key.digest for key in keys])):
        if len(set(seen)) < len(seen):
            raise ConfigError(f"--api-key: a {what} is there more than once; each must differ from the others")
    return tuple(keys)


def find_api_key(keys: Sequence[ApiKey], presented: bytes) -> ApiKey | None:
    """The key that was presented. It takes as long whichever it is, or if it is none."""
    digest = hashlib.sha256(presented).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _lines(file: str) -> Iterator[tuple[str, str]]:
    """The entries of a key file, each with its place; blank lines and those that begin with # say nothing."""
    if not file:
        return
    try:
        with Path(file).expanduser().open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--api-key-file {file} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"--api-key-file {file} has more than {_MAX_FILE_BYTES:,} bytes")
    lines = content.decode("utf-8-sig", "replace").splitlines()
    entries = [(line.strip(), f"--api-key-file {file}, line {number}") for number, line in enumerate(lines, start=1)]
    entries = [entry for entry in entries if entry[0] and not entry[0].startswith("#")]
    if not entries:
        raise ConfigError(f"--api-key-file {file} has no key; leave the option out to ask for none")
    yield from entries


def _parse(text: str, where: str, number: int) -> ApiKey:
    """One entry, the `number`th of all."""
    name, colon, rest = text.partition(":")
    if not colon:
        name, rest = f"key-{number}", text
    key, *limits = rest.split() or [""]
    if not _NAME.fullmatch(name.strip()):
        raise ConfigError(f"{where}: a key's name has 1 to 64 letters, digits, dots, dashes and underscores")
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{where}: a key has 1 to 512 printable ASCII characters, no blank and no comma")
    rates = dict(_limit(limit, where) for limit in limits)
    return ApiKey(name.strip(), hashlib.sha256(key.encode()).digest(), *(rates.get(name) for name in _LIMITS))


def _limit(text: str, where: str) -> tuple[str, int]:
    found = _LIMIT.fullmatch(text)
    if not found:
        raise ConfigError(
            f"{where}: behind a key there may be {'=N and '.join(_LIMITS)}=N, N a whole number, and no more"
        )
    return found[1], int(found[2])

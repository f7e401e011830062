"""API keys: their names, digests and limits. A leaf.

Owns the format of a key on the command line, in the environment and in a file:

    [NAME:] KEY [requests-per-minute=N] [tokens-per-minute=N] [weight=N]

An admin key has the same format, without limits and weights. Keys themselves are not stored. Only their names, digests
or places are stored, logged or named in errors. This module does not know HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from antiphon.errors import ConfigError
from antiphon.small_files import read_small_file

MAX_KEYS = 1000  # each has its own series in the metrics, and is compared with the key of every request
SHORT_KEY = 16  # characters; shorter keys can be guessed
_MAX_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,512}")  # printable, without spaces and commas
MAX_WEIGHT = 1000
_LIMITS = ("requests-per-minute", "tokens-per-minute", "weight")
_LIMIT = re.compile(rf"({'|'.join(_LIMITS)})=([0-9]{{1,12}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, stored as a digest."""

    name: str
    digest: bytes = field(repr=False)  # SHA-256
    requests_per_minute: int | None = None  # 0: no limit; None: the server's limit for every key
    tokens_per_minute: int | None = None
    weight: int = 1  # of its fair share: a key with weight 2 gets twice the service of one with weight 1
    is_short: bool = False  # it has fewer characters than SHORT_KEY

    @property
    def has_limits(self) -> bool:
        """Whether it has limits or a weight of its own."""
        return (self.requests_per_minute, self.tokens_per_minute, self.weight) != (None, None, 1)


def read_api_keys(typed: Sequence[str], file: str = "") -> tuple[ApiKey, ...]:
    """Read the keys from the command line or the environment, separated by commas, and from a file.

    Raises:
        ConfigError: a key is invalid, or a name or key occurs twice. The message contains the place, never the key.
    """
    return _read("--api-key", typed, file, "API keys")


def read_admin_keys(typed: Sequence[str], file: str = "") -> tuple[ApiKey, ...]:
    """Read the keys for the admin routes, in the same way.

    Raises:
        ConfigError: a key is invalid, has limits, or a name or key occurs twice.
    """
    keys = _read("--admin-key", typed, file, "admin keys")
    if any(key.has_limits for key in keys):
        raise ConfigError(f"--admin-key-file {file}: an admin key has no limits and no weight; write the key alone")
    return keys


def first_admin_key(typed: str, file: str = "") -> str:
    """The key itself of the first entry, for a client: from a file if there is one, else as it was typed.

    Empty if there is neither. Raises ConfigError if the file cannot be read or contains no key.
    """
    entry = next(_lines("--admin-key-file", file))[0] if file else typed.partition(",")[0].strip()
    name, colon, rest = entry.partition(":")
    return next(iter((rest if colon else name).split()), "")


def check_different(api_keys: Sequence[ApiKey], admin_keys: Sequence[ApiKey]) -> None:
    """Raise ConfigError if a key is among both: an API key must not open the admin routes."""
    for key in admin_keys:
        if any(hmac.compare_digest(key.digest, other.digest) for other in api_keys):
            raise ConfigError(
                f"--admin-key: the key {key.name} is an API key too; use another one for the admin routes"
            )


def _read(flag: str, typed: Sequence[str], file: str, what: str) -> tuple[ApiKey, ...]:
    """The keys of one kind: from `flag` and, with `-file` behind it, from a file."""
    entries = [(text.strip(), flag) for each in typed for text in each.split(",") if text.strip()]
    entries += _lines(f"{flag}-file", file)
    keys = [_parse(text, where, number) for number, (text, where) in enumerate(entries, start=1)]
    if len(keys) > MAX_KEYS:
        raise ConfigError(f"{flag}: there are {len(keys)} {what}; the maximum is {MAX_KEYS}")
    for each, seen in (("name", [key.name for key in keys]), ("key", [key.digest for key in keys])):
        if len(set(seen)) < len(seen):
            raise ConfigError(f"{flag}: the same {each} is used more than once; each must be different")
    return tuple(keys)


def find_api_key(keys: Sequence[ApiKey], presented: bytes) -> ApiKey | None:
    """The key that matches `presented`, or None. Takes the same time in all cases."""
    digest = hashlib.sha256(presented).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _lines(flag: str, file: str) -> Iterator[tuple[str, str]]:
    """The entries of a key file with their places. Blank lines and lines that begin with # are skipped."""
    if not file:
        return
    content = read_small_file(flag, file, _MAX_FILE_BYTES)
    lines = content.decode("utf-8-sig", "replace").splitlines()
    entries = [(line.strip(), f"{flag} {file}, line {number}") for number, line in enumerate(lines, start=1)]
    entries = [entry for entry in entries if entry[0] and not entry[0].startswith("#")]
    if not entries:
        raise ConfigError(f"{flag} {file} contains no key; leave out the option to serve without keys")
    yield from entries


def _parse(text: str, where: str, number: int) -> ApiKey:
    """Parse the `number`th entry."""
    name, colon, rest = text.partition(":")
    if not colon:
        name, rest = f"key-{number}", text
    key, *limits = rest.split() or [""]
    if limits and where in ("--api-key", "--admin-key"):
        raise ConfigError(f"{where}: a key cannot contain spaces; separate several keys by commas, or use a key file")
    if not _NAME.fullmatch(name.strip()):
        raise ConfigError(f"{where}: a key's name has 1 to 64 letters, digits, dots, dashes and underscores")
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{where}: a key has 1 to 512 printable ASCII characters, without spaces and commas")
    rates = dict(_limit(limit, where) for limit in limits)
    digest = hashlib.sha256(key.encode()).digest()
    requests, tokens = rates.get("requests-per-minute"), rates.get("tokens-per-minute")
    return ApiKey(name.strip(), digest, requests, tokens, rates.get("weight", 1), len(key) < SHORT_KEY)


def _limit(text: str, where: str) -> tuple[str, int]:
    found = _LIMIT.fullmatch(text)
    if not found:
        raise ConfigError(f"{where}: only {'=N, '.join(_LIMITS)}=N may follow a key, where N is a whole number")
    if found[1] == "weight" and not 1 <= int(found[2]) <= MAX_WEIGHT:
        raise ConfigError(f"{where}: weight={found[2]} is not possible; a weight is from 1 to {MAX_WEIGHT:,}")
    return found[1], int(found[2])

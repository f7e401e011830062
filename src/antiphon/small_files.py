"""Reads the small files that an operator names: settings, keys and secrets. A leaf."""

from __future__ import annotations

from pathlib import Path

from antiphon.errors import ConfigError


def read_small_file(flag: str, file: str, max_bytes: int, advice: str = "") -> bytes:
    """The contents of `file`, which was given with `flag`; never more than `max_bytes` are read.

    Raises ConfigError, which names both: the file cannot be read, or is larger. `advice` says what would work then.
    """
    try:
        with Path(file).expanduser().open("rb") as opened:
            content = opened.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{flag} {file} cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise ConfigError(f"{flag} {file} has more than {max_bytes:,} bytes" + (f"; {advice}" if advice else ""))
    return content

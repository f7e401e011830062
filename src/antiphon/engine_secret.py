"""The secret that servers and engine hosts share: where it comes from, and what it must be. A leaf."""

from __future__ import annotations

from pathlib import Path

from antiphon.errors import ConfigError

SHORTEST = 16  # characters; who records a handshake can try shorter ones
_MAX_BYTES = 4096
_HOW = "`openssl rand -hex 32` makes a good one"


def read_engine_secret(typed: str, file: str = "") -> str:
    """The secret from a file if there is one, else as it was typed; empty if there is neither.

    White space around it does not count. Raises ConfigError, which never quotes it.
    """
    secret, where = typed.strip(), "ANTIPHON_ENGINE_SECRET"
    if file:
        where = f"--engine-secret-file {file}"
        try:
            with Path(file).expanduser().open("rb") as opened:
                content = opened.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{where} has more than {_MAX_BYTES:,} bytes; {_HOW}")
        secret = content.decode(errors="replace").strip()
        if not secret:
            raise ConfigError(f"{where} is empty; {_HOW}")
    if secret and len(secret) < SHORTEST:
        raise ConfigError(f"{where}: the secret has fewer than {SHORTEST} characters and can be guessed; {_HOW}")
    return secret

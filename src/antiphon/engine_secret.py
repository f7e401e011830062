"""The secret that servers and engine hosts share: where it comes from, and what it must be. A leaf."""

from __future__ import annotations

from antiphon.errors import ConfigError
from antiphon.small_files import read_small_file

SHORTEST = 16  # characters; shorter ones can be guessed from a recorded handshake
_MAX_BYTES = 4096
_HOW = "`openssl rand -hex 32` makes a good one"


def read_engine_secret(typed: str, file: str = "") -> str:
    """The secret from a file if there is one, else as it was typed; empty if there is neither.

    White space around it does not count. Raises ConfigError, which never quotes it.
    """
    secret, where = typed.strip(), "ANTIPHON_ENGINE_SECRET"
    if file:
        where = f"--engine-secret-file {file}"
        secret = read_small_file("--engine-secret-file", file, _MAX_BYTES, _HOW).decode(errors="replace").strip()
        if not secret:
            raise ConfigError(f"{where} is empty; {_HOW}")
    if secret and len(secret) < SHORTEST:
        raise ConfigError(f"{where}: the secret has fewer than {SHORTEST} characters and can be guessed; {_HOW}")
    return secret

"""The address of a server, as it is typed for `antiphon chat`, `engines` and `reload`."""

from __future__ import annotations

from urllib.parse import urlsplit

from antiphon.errors import ConfigError

DEFAULT_URL = "http://127.0.0.1:8000"


def server_url(typed: str, option: str = "--url") -> str:
    """The address of a server, from one with or without `http://` before it and `/v1` behind it.

    `option`: where it was typed, for the error.

    Raises:
        ConfigError: it is not an address.
    """
    text = typed if "://" in typed else f"http://{typed}"
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        is_address = False
    if not is_address:
        raise ConfigError(f"{option} is {typed!r}; an address is like 127.0.0.1:8000 or https://host:8000")
    return text.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")

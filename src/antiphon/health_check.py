"""Says whether the server on this machine accepts requests, as an exit status: `python -m antiphon.health_check`.

For the health checks of containers, where there is no curl. It runs every few seconds beside a server that needs the
processor, so it imports only the standard library, and takes some 50 ms. It prints one line: the reason, if the
server is not ready.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

_TIMEOUT = 4.0  # seconds; below the five that the image's health check has
_MAX_BODY_BYTES = 4096


def server_address(environment: Mapping[str, str]) -> str:
    """ANTIPHON_URL, or else the port on this machine that ANTIPHON_PORT and ANTIPHON_SSL_CERTFILE name."""
    scheme = "https" if environment.get("ANTIPHON_SSL_CERTFILE") else "http"
    return environment.get("ANTIPHON_URL") or f"{scheme}://127.0.0.1:{environment.get('ANTIPHON_PORT') or 8000}"


def check(url: str) -> tuple[bool, str]:
    """Whether `GET /ready` answers 200, and its body or the reason why there is none.

    A certificate is not verified: nothing secret is sent, and no certificate names 127.0.0.1.
    """
    try:
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port)
        connection = (
            http.client.HTTPSConnection(*address, timeout=_TIMEOUT, context=ssl._create_unverified_context())  # noqa: S323
            if parts.scheme == "https"
            else http.client.HTTPConnection(*address, timeout=_TIMEOUT)
        )
        connection.request("GET", "/ready")
        response = connection.getresponse()
        return response.status == http.client.OK, response.read(_MAX_BODY_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"no answer from {url}: {error}"


def main() -> int:
    """Print the answer, and return the exit status: 0 if the server is ready, else 1."""
    is_ready, answer = check(server_address(os.environ))
    print(answer)
    return 0 if is_ready else 1


if __name__ == "__main__":
    sys.exit(main())

"""Reads from a request's headers how long its client waits, and whether it has asked before.

OpenAI's and Anthropic's SDKs say how long they wait for bytes (`x-stainless-read-timeout` in Python,
`x-stainless-timeout` in JavaScript) and how often they have retried (`x-stainless-retry-count`). Envoy says in
`x-envoy-expected-rq-timeout-ms` when it ends the request, and any client can send `X-Request-Timeout`, in seconds. In
this last header, a value that is not a number is an error. In the others it is ignored, since the author of the request
may not know that they are sent.
"""

from __future__ import annotations

from math import inf

from starlette.datastructures import Headers

from antiphon.api.deadlines import Deadlines
from antiphon.errors import InvalidRequest


def deadlines_of(headers: Headers, client: str, max_wait: float, digest: bytes = b"") -> Deadlines:
    """The deadlines of a request from `client`.

    `max_wait` is the server's setting, 0 for no limit; `digest` is that of the body, empty if it was not read yet.

    Raises:
        InvalidRequest: X-Request-Timeout is not a number of seconds above 0.
    """
    said = headers.get("x-request-timeout")
    own = _positive(said)
    if said is not None and own is None:
        raise InvalidRequest(
            "The header X-Request-Timeout is not a number of seconds above 0.", param="x-request-timeout"
        )
    envoy = _positive(headers.get("x-envoy-expected-rq-timeout-ms"))
    silence = (_positive(headers.get(name)) for name in ("x-stainless-read-timeout", "x-stainless-timeout"))
    count = headers.get("x-stainless-retry-count", "")
    return Deadlines(
        max_wait=max_wait or inf,
        answer=min(own or inf, inf if envoy is None else envoy / 1000),
        silence=min(seconds or inf for seconds in silence),
        client=client,
        retry_count=int(count) if count.isascii() and count.isdigit() and len(count) < 10 else None,
        digest=digest,
    )


def _positive(text: str | None) -> float | None:
    """A number above 0, or None."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number > 0 else None  # false for NaN

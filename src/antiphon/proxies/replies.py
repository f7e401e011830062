"""The errors that a proxy answers itself, in the shape of the API that was called.

No server saw these requests, or none could be reached. They look like a server's own errors, so that clients need to
know one kind only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from antiphon.api.errors import error_body
from antiphon.api.messages.errors import error_body as messages_error_body
from antiphon.api.ollama.answer import error_body as ollama_error_body
from antiphon.errors import AntiphonError, InvalidRequest, NotReady, RequestTimeout, RequestTooLarge

RETRY_SECONDS = 5  # after which a server that was restarted usually answers again

# Paths below which errors have another shape than OpenAI's, relative to the servers' `/`.
SHAPES: dict[str, tuple[tuple[str, ...], Callable[[AntiphonError], bytes]]] = {
    "openai": ((), error_body),
    "anthropic": (("/v1/messages", "/messages"), messages_error_body),
    "ollama": (("/api",), ollama_error_body),
}

# With this header set to 503, servers say 503 instead of Anthropic's 529, and name that in a header of the same name.
OVERLOADED_STATUS_HEADER = "X-Overloaded-Status"

# Routes for operators. Whatever is below them is closed too.
OPERATOR_PATHS = ("/admin", "/metrics")


@dataclass(frozen=True, slots=True)
class Reply:
    """An error that a proxy sends."""

    name: str
    statuses: tuple[int, ...]  # of the proxy, which this replaces
    error: AntiphonError

    @property
    def status(self) -> int:
        """The status that clients get."""
        return self.error.http_status

    def body(self, shape: str = "openai") -> str:
        """The JSON text, in one of `SHAPES`."""
        return SHAPES[shape][1](self.error).decode()


class _UnknownUrl(InvalidRequest):
    http_status = 404
    code = "unknown_url"


class _HeadIsLong(InvalidRequest):
    http_status = 431


class _NoServer(NotReady):
    """No server answered. Unlike a server's own 503, it came from the proxy; the code says so."""

    code = "no_server_available"


def too_large(max_body_bytes: int) -> Reply:
    """The body is larger than the servers accept."""
    message = f"The request body is larger than {max_body_bytes} bytes, the maximum of this server."
    return Reply("too_large", (413,), RequestTooLarge(message))


def unavailable() -> Reply:
    """No server could be reached, or none finished its answer."""
    message = f"No server could answer this request. Try again in {RETRY_SECONDS} s."
    return Reply("unavailable", (502, 503, 504), _NoServer(message, retry_after=RETRY_SECONDS))


def closed() -> Reply:
    """A route that is not open through the proxy."""
    return Reply("closed", (), _UnknownUrl("There is nothing at this URL."))


def unknown_host() -> Reply:
    """The Host header has a name that this proxy does not serve."""
    return Reply("unknown_host", (), InvalidRequest("The name in the Host header is not one of this server."))


def bad_request() -> Reply:
    """What was sent is not HTTP, or nothing that a proxy passes on."""
    return Reply("bad_request", (400, 405, 501, 505), InvalidRequest("This is not a valid HTTP request."))


def needs_https() -> Reply:
    """Plain HTTP was sent to a port for HTTPS. The status is nginx's own."""
    return Reply("needs_https", (497,), InvalidRequest("This port expects HTTPS; begin the URL with https://."))


def head_is_long() -> Reply:
    """The request line or the headers are too long."""
    return Reply("head_is_long", (414, 431, 494), _HeadIsLong("The request line or the headers are too long."))


def late(network_timeout: float) -> Reply:
    """The request did not arrive in time."""
    return Reply("late", (408,), RequestTimeout("headers or body", network_timeout))

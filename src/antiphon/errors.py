"""The exception hierarchy. Each error has its HTTP status and OpenAI's type and code; nothing here uses HTTP.

AntiphonError
├── ConfigError                 a setting is invalid (raised before anything starts)
│   ├── NotEnoughMemory         the model and its settings need more memory than is available
│   ├── NoSuchEngine            there is no engine with that id
│   └── OperationInProgress     the engines are being changed already; one operation runs at a time
├── CheckpointError             a model file or folder cannot be served; names the file and the tensor or field
├── HubError                    a model could not be downloaded; says why, and what would work
│   └── HubUnreachable          the hub does not answer; an earlier download may be used
├── InvalidRequest      400     the request is invalid; `param` names the field
│   └── ContextLengthExceeded   prompt and completion do not fit the context; gives both lengths
├── InvalidApiKey       401     no key, or an invalid one
├── CrossSiteRequest    403     a web page of another site sent it
├── RequestTimeout      408     the request did not arrive in time
├── SlowReader          408     the answer was not read in time
├── RequestTooLarge     413     the body is larger than allowed
├── UnsupportedMediaType 415    the body's type is not JSON
├── NotFound            404     there is nothing with that name or id
│   ├── ModelNotFound
│   └── ResponseNotFound
├── Conflict            409     the server cannot do this in its present state, or does something else now
├── RateLimited         429     a key has used its requests or tokens of this minute
├── Overloaded          503     the server has too much work; `retry_after` says when to retry
│   └── EngineUnavailable       the engine keeps failing, so requests are refused for a while
├── TooManyConnections  503     the server has too many connections
├── NotReady            503     loading, draining, or restarting the engine
│   └── PeerUnavailable         the server that stores a response cannot be reached
└── EngineError         500     the engine failed this request
    └── EngineDied              the engine died or hung twice while it ran this request

Messages are for the person who sent the request or typed the command: they say what is wrong and what would work, and
never contain memory addresses, paths of our code or tracebacks.
"""

from __future__ import annotations

import math
from typing import Literal

# Why work is refused or dropped: too many requests, too many of one client, a predicted wait that is too long, or one
# that was too long, a rule of --degrade, engines that keep failing.
SHED_REASONS = ("queue_full", "client_queue_full", "predicted_wait", "queue_timeout", "degraded", "breaker")
MAX_QUOTED = 1200  # characters of a message that quotes a file from outside; paths may take most of it


def printable(text: str) -> str:
    """The text with control characters, and others that a terminal does not show, as escapes."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def short(message: str) -> str:
    """A printable message, shortened in the middle: its end says what would work."""
    message = printable(message)
    if len(message) <= MAX_QUOTED:
        return message
    return f"{message[: MAX_QUOTED // 2]} … {message[-MAX_QUOTED // 2 :]}"


class AntiphonError(Exception):
    """Base class of all expected errors."""

    http_status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    retry_after: float | None = None  # seconds

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ConfigError(AntiphonError):
    """A setting is invalid; the message names the option."""


class NotEnoughMemory(ConfigError):
    """The model and its settings need more memory than is available."""

    def __init__(
        self,
        message: str = "the model and its KV cache need more memory than is available; free some, serve a smaller "
        "model, or lower --kv-cache-tokens, --max-num-seqs or --context-length",
    ) -> None:
        super().__init__(message)


class NoSuchEngine(ConfigError):
    """There is no engine with that id, or it has been removed."""


class OperationInProgress(ConfigError):
    """The engines are being changed already; one operation runs at a time."""


class CheckpointError(AntiphonError):
    """A model file or folder cannot be served; the message names the file and the tensor or field.

    Messages quote files from outside, so they are shortened and contain no control characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(short(message))


class HubError(AntiphonError):
    """A model could not be downloaded; the message says why, and what would work.

    Messages quote the hub, so they are treated as those of CheckpointError.
    """

    def __init__(self, message: str) -> None:
        super().__init__(short(message))


class HubUnreachable(HubError):
    """The hub does not answer, or is unavailable; an earlier download may be used."""


class InvalidRequest(AntiphonError):
    """The request is invalid; `param` names the field in OpenAI's dotted form."""

    http_status = 400
    type = "invalid_request_error"
    code: str | None = None


class ContextLengthExceeded(InvalidRequest):
    """Prompt and completion do not fit the context."""

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, limit: int, *, param: str = "messages", at_least: bool = False) -> None:
        """`at_least`: the prompt was not counted to its end."""
        super().__init__(
            f"This model's maximum context length is {limit} tokens. However, the prompt has "
            f"{'at least ' if at_least else ''}{prompt_tokens} tokens, and at least one must be left for the answer. "
            f"Shorten the prompt to {limit - 1} tokens or fewer.",
            param=param,
        )


class InvalidApiKey(AntiphonError):
    """The request has no API key, or an invalid one."""

    http_status = 401
    type = "invalid_request_error"  # OpenAI's
    code = "invalid_api_key"


class CrossSiteRequest(AntiphonError):
    """A web page of another site sent the request, and its origin is not allowed."""

    http_status = 403
    type = "invalid_request_error"
    code = "cross_site_request"

    def __init__(self) -> None:
        super().__init__(
            "This server does not accept requests from web pages of other sites. To allow a site, add its origin with "
            "--allowed-origins."
        )


class RequestTimeout(AntiphonError):
    """A part of the request did not arrive in time."""

    http_status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def __init__(self, part: str, seconds: float) -> None:
        super().__init__(f"The request's {part} did not arrive within {seconds:g} seconds.")


class SlowReader(AntiphonError):
    """The client reads its answer so slowly that the rest was aborted."""

    http_status = 408
    type = "invalid_request_error"
    code = "slow_reader"


class RequestTooLarge(AntiphonError):
    """The body, or a part of it, is larger than allowed."""

    http_status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(AntiphonError):
    """The body's type is not JSON."""

    http_status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class NotFound(AntiphonError):
    """There is nothing with the name or id in the request."""

    http_status = 404
    type = "invalid_request_error"
    code: str | None = "not_found"


class ModelNotFound(NotFound):
    """The request names a model that this server does not have."""

    code = "model_not_found"


class ResponseNotFound(NotFound):
    """The request names a response that was never stored, or is not stored any more."""

    code = "previous_response_not_found"


class Conflict(AntiphonError):
    """An operation on the server is not possible in its present state; the message says why."""

    http_status = 409
    type = "invalid_request_error"

    def __init__(self, message: str, *, code: str = "operation_refused") -> None:
        super().__init__(message)
        self.code = code


class Overloaded(AntiphonError):
    """The server has too much work for this request; retry after `retry_after` seconds, if there are any.

    Not a 429, which means that a key is over its rate: another server may take this request at once.
    """

    http_status = 503
    type = "server_error"
    code = "server_overloaded"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = 1.0,
        reason: str = "queue_full",
        predicted_wait: float | None = None,
    ) -> None:
        """`retry_after`: None if trying again soon is of no use; `reason`: for metrics, one of `SHED_REASONS`;
        `predicted_wait`: seconds until the first token, as far as they were predicted.
        """
        super().__init__(message)
        self.retry_after = retry_after
        self.reason = reason
        self.predicted_wait = predicted_wait


class EngineUnavailable(Overloaded):
    """The engine keeps failing; retry after `retry_after` seconds, when a request may show that it works again."""

    code = "engine_unavailable"

    def __init__(self, retry_after: float) -> None:
        super().__init__(
            "The model's engine failed several times in a row, so new requests are refused for a while. Try again in "
            f"{max(1, math.ceil(retry_after))} s.",
            retry_after=retry_after,
            reason="breaker",
        )


class RateLimited(AntiphonError):
    """A key has used its requests or tokens of this minute; retry after `retry_after` seconds."""

    http_status = 429
    code = "rate_limit_exceeded"

    def __init__(self, kind: Literal["requests", "tokens"], message: str, retry_after: float) -> None:
        """`kind` is OpenAI's `type` for it."""
        super().__init__(message)
        self.type = kind
        self.retry_after = retry_after


class TooManyConnections(AntiphonError):
    """The server has too many connections."""

    http_status = 503
    code = "too_many_connections"

    def __init__(self) -> None:
        super().__init__("The server has too many connections; please try again later.")
        self.retry_after = 1


class NotReady(AntiphonError):
    """The server is running but cannot accept work now: it is loading, draining, or restarting the engine."""

    http_status = 503
    type = "server_error"
    code = "not_ready"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PeerUnavailable(NotReady):
    """The server that stores a response cannot be reached now, or ended while it answered."""

    code = "response_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The server that stores this response cannot be reached. Try again, or send the whole conversation as "
            "'input' to begin a new one.",
            retry_after=2.0,
        )


class EngineError(AntiphonError):
    """The engine failed this request; others are not affected."""

    code = "engine_error"


class EngineDied(EngineError):
    """The engine died or hung twice while it ran this request; it is not tried a third time."""

    code = "engine_died"

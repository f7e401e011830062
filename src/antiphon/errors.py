"""The exception tree. Each error knows its HTTP status and OpenAI's words for it; nothing here knows HTTP itself.

AntiphonError
├── ConfigError                 a setting that cannot work (raised before anything starts)
│   └── NotEnoughMemory         the model and its settings ask for more memory than can be had
├── CheckpointError             a model file or folder that cannot be served; names the file and the tensor or field
├── HubError                    a model that could not be downloaded from a hub; says why, and what would work
│   └── HubUnreachable          the hub does not answer; what was brought before may do
├── InvalidRequest      400     the sender's mistake; `param` names the offending field
│   └── ContextLengthExceeded   prompt and completion do not fit the context; says both lengths
├── InvalidApiKey       401     no key, or one that is not valid here
├── RequestTimeout      408     the request did not arrive in time
├── SlowReader          408     the answer was not read in time
├── RequestTooLarge     413     the body is over its cap
├── UnsupportedMediaType 415    the body is not announced as plain JSON
├── NotFound            404     nothing here has that name or id
│   ├── ModelNotFound
│   └── ResponseNotFound
├── Overloaded          429     a queue is at its cap; `retry_after` says when to come back
├── RateLimited         429     a key has had its requests or tokens of this minute
├── TooManyConnections  503     more connections than the server holds
├── NotReady            503     still loading, draining, or between two engines
└── EngineError         500     the engine failed this request
    └── EngineDied              the engine died, or hung, twice while it was working on this request

Messages are for the person who sent the request or typed the command: they say what was wrong and what would work, and
never hold addresses, paths of this machine's code or traces.
"""

from __future__ import annotations

from typing import Literal

MAX_QUOTED = 1200  # characters of a message that quotes a stranger's file; paths may take most of it


def printable(text: str) -> str:
    """The text with control characters, and others that a terminal does not show, as escapes."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def short(message: str) -> str:
    """A message for people: printable, and cut in the middle, since what would work is said at the end."""
    message = printable(message)
    if len(message) <= MAX_QUOTED:
        return message
    return f"{message[: MAX_QUOTED // 2]} … {message[-MAX_QUOTED // 2 :]}"


class AntiphonError(Exception):
    """Base of every error we raise on purpose."""

    http_status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    retry_after: float | None = None  # seconds

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ConfigError(AntiphonError):
    """A setting that cannot work; the message names the flag."""


class NotEnoughMemory(ConfigError):
    """The model and its settings ask for more memory than can be had."""

    def __init__(
        self,
        message: str = "the model and its KV cache ask for more memory than can be had; free some, serve a smaller "
        "model, or lower --kv-cache-tokens, --max-num-seqs or --context-length",
    ) -> None:
        super().__init__(message)


class CheckpointError(AntiphonError):
    """A model file or folder that cannot be served; the message names the file and the tensor or field.

    Messages quote strangers' files, so they are cut to a length that people read and hold no control characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(short(message))


class HubError(AntiphonError):
    """A model that could not be downloaded from a hub; the message says why, and what would work.

    Messages quote a hub's words, and are made harmless as CheckpointError's are.
    """

    def __init__(self, message: str) -> None:
        super().__init__(short(message))


class HubUnreachable(HubError):
    """The hub does not answer, or answers that it cannot now; what was brought before may do."""


class InvalidRequest(AntiphonError):
    """The sender's mistake; `param` names the offending field in OpenAI's dotted form."""

    http_status = 400
    type = "invalid_request_error"
    code: str | None = None


class ContextLengthExceeded(InvalidRequest):
    """Prompt plus completion do not fit the context."""

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
    """The request has no API key, or one that is not valid here."""

    http_status = 401
    type = "invalid_request_error"  # OpenAI's
    code = "invalid_api_key"


class RequestTimeout(AntiphonError):
    """A part of the request did not arrive in time."""

    http_status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def __init__(self, part: str, seconds: float) -> None:
        super().__init__(f"The request's {part} did not arrive within {seconds:g} seconds.")


class SlowReader(AntiphonError):
    """The client reads its answer so much slower than it is made that the rest is given up."""

    http_status = 408
    type = "invalid_request_error"
    code = "slow_reader"


class RequestTooLarge(AntiphonError):
    """The body, or a part of it, is over its cap."""

    http_status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(AntiphonError):
    """The body is not announced as plain JSON."""

    http_status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class NotFound(AntiphonError):
    """Nothing here has the name or id that the request gives."""

    http_status = 404
    type = "invalid_request_error"
    code: str | None = "not_found"


class ModelNotFound(NotFound):
    """The request names a model that is not served here."""

    code = "model_not_found"


class ResponseNotFound(NotFound):
    """The request names a response that was never kept here, or is no more."""

    code = "previous_response_not_found"


class Overloaded(AntiphonError):
    """A queue is at its cap; come back after `retry_after` seconds."""

    http_status = 429
    type = "rate_limit_error"
    code = "server_overloaded"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(AntiphonError):
    """A key has had its requests or tokens of this minute; come back after `retry_after` seconds."""

    http_status = 429
    code = "rate_limit_exceeded"

    def __init__(self, kind: Literal["requests", "tokens"], message: str, retry_after: float) -> None:
        """`kind` is OpenAI's `type` for it."""
        super().__init__(message)
        self.type = kind
        self.retry_after = retry_after


class TooManyConnections(AntiphonError):
    """The server holds as many connections as it may."""

    http_status = 503
    code = "too_many_connections"

    def __init__(self) -> None:
        super().__init__("The server has as many connections as it takes; please try again later.")
        self.retry_after = 1


class NotReady(AntiphonError):
    """The server is alive but cannot take work now: loading, draining, or between two engines."""

    http_status = 503
    type = "server_error"
    code = "not_ready"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(AntiphonError):
    """The engine failed this request; others are untouched."""

    code = "engine_error"


class EngineDied(EngineError):
    """The engine died, or hung, twice while it was working on this request, which is not tried a third time."""

    code = "engine_died"

"""The lines of a batch: requests in OpenAI's batch format, and the output line of each.

Owns the format of both, and reads a file of requests one line at a time. It promises that an invalid line, however
broken or long, does not affect the lines around it. What the bodies mean is none of its business: they are passed to
their endpoints unchanged.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import msgspec

from antiphon.api.errors import error_body
from antiphon.errors import AntiphonError, InvalidRequest, RequestTooLarge

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
_FIELDS = ("custom_id", "method", "url", "body")
_ENVELOPE_BYTES = 1 << 16  # of a line, around its body
_MAX_ID_LENGTH = 512
_SKIPPED_BYTES = 1 << 20  # at a time, of a line that is too long
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Asked(msgspec.Struct):
    """The part of a body that a batch needs to know."""

    stream: msgspec.Raw = msgspec.Raw(b"")


class LineError(msgspec.Struct):
    """Why a line is not a valid request."""

    code: str
    message: str
    line: int  # its number in the file of requests, from 1


class BatchResponse(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class BatchOutput(msgspec.Struct):
    """A line of the output file."""

    id: str
    custom_id: str | None  # null if the line had none
    response: BatchResponse
    error: LineError | None = None


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A line that is a valid request."""

    custom_id: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not."""

    error: AntiphonError
    custom_id: str | None = None


def read_lines(file: IO[bytes], max_body_bytes: int) -> Iterator[tuple[int, BatchRequest | BadLine]]:
    """Every line that is not blank, with its number. Only the current line is held in memory."""
    longest = max_body_bytes + _ENVELOPE_BYTES
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if len(line) > longest:
            _skip_line(file, line)
            yield (
                number,
                BadLine(RequestTooLarge(f"The line is larger than {longest} bytes, the maximum for a line.")),
            )
        elif line.strip():
            yield number, _parsed(line)


def bad_line_output(number: int, bad: BadLine) -> bytes:
    """The output for an invalid line: the error that a server would send, and the line's number."""
    error = bad.error
    response = BatchResponse(error.http_status, f"req-{secrets.token_hex(16)}", msgspec.Raw(error_body(error)))
    return _line(bad.custom_id, response, LineError(error.code or error.type, error.message, number))


def answer_output(custom_id: str, status_code: int, request_id: str, body: bytes) -> bytes:
    """The output for a request that was answered or refused."""
    return _line(custom_id, BatchResponse(status_code, request_id, msgspec.Raw(body)), None)


def _line(custom_id: str | None, response: BatchResponse, error: LineError | None) -> bytes:
    return _encode(BatchOutput(f"batch_req_{secrets.token_hex(16)}", custom_id, response, error)) + b"\n"


def _skip_line(file: IO[bytes], read: bytes) -> None:
    while read and not read.endswith(b"\n"):
        read = file.readline(_SKIPPED_BYTES)


def _parsed(line: bytes) -> BatchRequest | BadLine:
    custom_id = None
    try:
        fields = _fields(line)
        custom_id = _text(fields, "custom_id")
        if not 1 <= len(custom_id) <= _MAX_ID_LENGTH:
            raise InvalidRequest(f"'custom_id' must have 1 to {_MAX_ID_LENGTH} characters.", param="custom_id")
        if unknown := [name for name in fields if name not in _FIELDS]:
            raise InvalidRequest(f"Unknown parameter: {unknown[0][:100]!r}.", param=unknown[0][:100])
        if (method := _text(fields, "method")) != "POST":
            raise InvalidRequest(f"'method' is {method[:40]!r}; it must be 'POST'.", param="method")
        if (url := _text(fields, "url")) not in URLS:
            raise InvalidRequest(f"'url' is {url[:100]!r}; it must be one of {', '.join(URLS)}.", param="url")
        return BatchRequest(custom_id, url, _body(fields))
    except InvalidRequest as error:
        return BadLine(error, custom_id)


def _fields(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode_fields(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The line is not a JSON object: {error}.") from None


def _text(fields: dict[str, msgspec.Raw], name: str) -> str:
    if name not in fields:
        raise InvalidRequest(f"Missing required parameter: '{name}'.", param=name)
    try:
        return msgspec.json.decode(fields[name], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"Invalid value for '{name}': should be a valid string.", param=name) from None


def _body(fields: dict[str, msgspec.Raw]) -> bytes:
    if "body" not in fields:
        raise InvalidRequest("Missing required parameter: 'body'.", param="body")
    body = bytes(fields["body"])
    if _streams(body):
        raise InvalidRequest("Streams are not supported in a batch; leave out 'stream'.", param="body.stream")
    return body


def _streams(body: bytes) -> bool:
    """Whether the body asks for a stream; an invalid body is left to its endpoint."""
    try:
        return bytes(msgspec.json.decode(body, type=_Asked).stream) == b"true"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False

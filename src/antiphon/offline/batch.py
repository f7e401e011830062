"""A file of requests, answered into another file, directly with the engine.

Owns how a line is processed: read, answered by the code that answers HTTP requests, written as soon as it is done. It
promises that an answer equals the server's, that a line that fails affects no other, that no more lines are held in
memory than keep the engine busy, and that a batch that was stopped, even by a kill, continues where it ended.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from antiphon.api.chat.answer import begin as begin_chat
from antiphon.api.completions.answer import begin as begin_completion
from antiphon.api.context import Context
from antiphon.api.errors import error_body, internal_error
from antiphon.api.exchange import Exchange
from antiphon.api.responses.answer import begin as begin_response
from antiphon.config import EngineConfig, ServerConfig
from antiphon.errors import AntiphonError, ConfigError, EngineDied, InvalidRequest, NotReady
from antiphon.loading.model import Found
from antiphon.offline.batch_file import BatchFile
from antiphon.offline.batch_lines import BadLine, BatchRequest, answer_output, bad_line_output, read_lines
from antiphon.offline.running import running_context
from antiphon.strict_json import decode_json_object

_REQUESTS_PER_PLACE = 2  # for each answer computed at a time, so that the next is ready when one ends
_COUNTED_BYTES = 1 << 20  # at a time
_BEGIN = {
    "/v1/chat/completions": ("chat", begin_chat),
    "/v1/completions": ("completions", begin_completion),
    "/v1/responses": ("responses", begin_response),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a batch, in lines of the output file."""

    done: int
    failed: int
    kept: int  # of those done, from an earlier run


Watch = Callable[[Progress], None]


def count_lines(path: Path) -> int:
    """The number of lines in the file of requests; ConfigError if there is no such file."""
    try:
        if not path.is_file():
            raise ConfigError(f"there is no file {str(path)!r}")
        with path.open("rb") as file:
            ends, last = 0, b"\n"
            while chunk := file.read(_COUNTED_BYTES):
                ends += chunk.count(b"\n")
                last = chunk[-1:]
            return ends + (last != b"\n")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


async def run_batch(
    requests: Path, answers: BatchFile, found: Found, engine: EngineConfig, settings: ServerConfig, watch: Watch
) -> Progress:
    """Answer every line of `requests` that `answers` does not hold yet.

    Raises:
        ConfigError, CheckpointError, EngineDied: the model cannot be loaded, or its engine cannot be kept running.
    """
    kept = answers.num_lines
    with requests.open("rb") as file:
        lines = _missing(read_lines(file, settings.max_body_bytes), answers)
        if (first := next(lines, None)) is None:
            answers.repair()
            return Progress(kept, answers.num_failed, kept)
        lines = chain((first,), lines)
        async with running_context(found, engine, settings) as context:
            answers.repair()  # only now is it certain that the batch can continue
            worker = _Worker(context, answers, lambda: watch(Progress(answers.num_lines, answers.num_failed, kept)))
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(_REQUESTS_PER_PLACE * engine.max_num_sequences):
                        group.create_task(worker.run(lines))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
    return Progress(answers.num_lines, answers.num_failed, kept)


def _missing(
    lines: Iterator[tuple[int, BatchRequest | BadLine]], answers: BatchFile
) -> Iterator[tuple[int, BatchRequest | BadLine]]:
    """The lines that `answers` does not have yet; one with a custom id used before is a bad line."""
    seen: set[str] = set()
    for number, line in lines:
        if isinstance(line, BatchRequest) and line.custom_id in seen:
            message = f"The custom_id {line.custom_id[:100]!r} occurs earlier in the file; each line needs its own."
            line = BadLine(InvalidRequest(message, param="custom_id"), line.custom_id)
        if isinstance(line, BadLine):
            if number not in answers.bad_lines:
                yield number, line
        else:
            seen.add(line.custom_id)
            if line.custom_id not in answers.answered:
                yield number, line


class _Worker:
    """Processes one line after another; several workers run at a time."""

    def __init__(self, context: Context, answers: BatchFile, on_line: Callable[[], None]) -> None:
        self._context = context
        self._answers = answers
        self._on_line = on_line

    async def run(self, lines: Iterator[tuple[int, BatchRequest | BadLine]]) -> None:
        """Answer lines until there are no more."""
        for number, line in lines:
            if isinstance(line, BadLine):
                self._answers.add_bad_line(number, bad_line_output(number, line))
                await asyncio.sleep(0)  # a file may be nothing but these
            else:
                await self._ask(line)
            self._on_line()

    async def _ask(self, line: BatchRequest) -> None:
        status, body = 200, b""
        try:
            body = await self._answer(line)
        except NotReady:  # not the line's fault, and the next would fail as well
            raise self._reason() from None
        except AntiphonError as error:
            status, body = error.http_status, error_body(error)
        except Exception:
            logger.exception("unexpected error in a line of a batch")
            status, body = 500, error_body(internal_error())
        output = answer_output(line.custom_id, status, f"req-{secrets.token_hex(16)}", body)
        self._answers.add_answer(line.custom_id, output, failed=status != 200)

    async def _answer(self, line: BatchRequest) -> bytes:
        endpoint, begin = _BEGIN[line.url]
        with self._context.metrics.request(endpoint) as account:
            exchange = await begin(self._context, decode_json_object(line.body), account)
        assert isinstance(exchange, Exchange), "without stored responses, none runs in the background"
        async with exchange.generation as generation:
            return await exchange.answer.whole(generation)

    def _reason(self) -> AntiphonError:
        return self._context.engine.error or EngineDied("The engine was stopped before the batch was done.")

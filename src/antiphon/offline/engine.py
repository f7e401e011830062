"""`antiphon.Engine`: a model for use in a program, with the answers that the server gives its clients.

Owns the public methods, sync and async, and the promise that no process is left: not after a `with` block, not after an
exception, not when the object is dropped, and not when the interpreter ends or is killed.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, overload

from antiphon.api.context import Context
from antiphon.offline.answers import Answer, Delta
from antiphon.offline.background import Background
from antiphon.offline.calls import Call, Endpoint, answer, answers, deltas
from antiphon.offline.feed import Feed
from antiphon.offline.settings import configs

T = TypeVar("T")

Message = Mapping[str, Any]  # {"role": "user", "content": "…"}
Conversation: TypeAlias = Sequence[Message]
Prompt: TypeAlias = str | list[int]
Prompts: TypeAlias = list[str] | list[list[int]]

_CALLS_PER_PLACE = 2  # for each answer computed at a time, so that the next is ready when one ends


class Engine:
    """One model, loaded in a process of its own. Calls may come from any thread and any event loop; they share the
    engine's batch.

    The model is loaded in the background; `with`, `async with` and the first call wait for it and raise what went
    wrong. `settings` are the options of `antiphon serve` that concern the model, in Python's spelling:
    `context_length=4096`, `max_num_seqs=16` …

    Raises:
        ConfigError: a setting is unknown or has an invalid value.
    """

    def __init__(self, model: str | os.PathLike[str], **settings: object) -> None:
        self._config, front = configs(os.fspath(model), settings)
        self._background = Background(self._config, front)
        # Called when this object is dropped, and at the interpreter's end.
        self._close = weakref.finalize(self, self._background.close)

    def __repr__(self) -> str:
        return f"Engine({self._config.model!r})"

    def close(self) -> None:
        """End the engine's process; calls that are still running raise NotReady. Idempotent."""
        self._close()

    def __enter__(self) -> Engine:
        try:
            self._wait(self._background.submit(_nothing))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        try:
            await asyncio.wrap_future(self._background.submit(_nothing))
        except BaseException:
            await asyncio.to_thread(self.close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # --- whole answers

    @overload
    def generate(self, prompt: Prompt, **fields: object) -> Answer: ...
    @overload
    def generate(self, prompt: Prompts, **fields: object) -> list[Answer]: ...
    def generate(self, prompt: Prompt | Prompts, **fields: object) -> Answer | list[Answer]:
        """Continue a text or a list of token ids, or each of a list of these, in one batch.

        `fields` are those of /v1/completions.

        Raises:
            InvalidRequest: a field is wrong; the error names it.
            EngineError: the engine failed.
            NotReady: this engine is closed.
        """
        return self._wait(self._begin("completions", prompt, fields))

    @overload
    async def agenerate(self, prompt: Prompt, **fields: object) -> Answer: ...
    @overload
    async def agenerate(self, prompt: Prompts, **fields: object) -> list[Answer]: ...
    async def agenerate(self, prompt: Prompt | Prompts, **fields: object) -> Answer | list[Answer]:
        """`generate`, for an event loop."""
        return await asyncio.wrap_future(self._begin("completions", prompt, fields))

    @overload
    def chat(self, messages: Conversation, **fields: object) -> Answer: ...
    @overload
    def chat(self, messages: Sequence[Conversation], **fields: object) -> list[Answer]: ...
    def chat(self, messages: Conversation | Sequence[Conversation], **fields: object) -> Answer | list[Answer]:
        """Answer a conversation, or each of a list of conversations, in one batch.

        `fields` are those of /v1/chat/completions. Raises what `generate` raises.
        """
        return self._wait(self._begin("chat", messages, fields))

    @overload
    async def achat(self, messages: Conversation, **fields: object) -> Answer: ...
    @overload
    async def achat(self, messages: Sequence[Conversation], **fields: object) -> list[Answer]: ...
    async def achat(self, messages: Conversation | Sequence[Conversation], **fields: object) -> Answer | list[Answer]:
        """`chat`, for an event loop."""
        return await asyncio.wrap_future(self._begin("chat", messages, fields))

    # --- streams

    def stream(self, prompt: Prompt, **fields: object) -> Iterator[Delta]:
        """Continue one text or one list of token ids, and yield the text as it is generated. Leaving the loop early
        ends the generation.
        """
        return self._deltas(Call("completions", {"prompt": prompt, **fields}))

    def astream(self, prompt: Prompt, **fields: object) -> AsyncIterator[Delta]:
        """`stream`, for an event loop."""
        return self._adeltas(Call("completions", {"prompt": prompt, **fields}))

    def stream_chat(self, messages: Conversation, **fields: object) -> Iterator[Delta]:
        """Answer one conversation, and yield the text as it is generated. Leaving the loop early ends it."""
        return self._deltas(Call("chat", {"messages": messages, **fields}))

    def astream_chat(self, messages: Conversation, **fields: object) -> AsyncIterator[Delta]:
        """`stream_chat`, for an event loop."""
        return self._adeltas(Call("chat", {"messages": messages, **fields}))

    # --- between this thread and the engine's

    def _begin(self, endpoint: Endpoint, sent: Any, fields: Mapping[str, object]) -> Future[Answer | list[Answer]]:  # noqa: ANN401
        """One call, or one for each item of a list."""
        name = "prompt" if endpoint == "completions" else "messages"
        several = _is_several(endpoint, sent)
        calls = [Call(endpoint, {name: each, **fields}) for each in (sent if several else [sent])]
        at_once = _CALLS_PER_PLACE * self._config.max_num_sequences

        async def call(context: Context) -> Answer | list[Answer]:
            return await answers(context, calls, at_once) if several else await answer(context, calls[0])

        return self._background.submit(call)

    def _wait(self, outcome: Future[T]) -> T:
        try:
            return outcome.result()
        except BaseException:
            outcome.cancel()  # if the wait ended with Ctrl-C
            raise

    def _deltas(self, call: Call) -> Iterator[Delta]:
        feed = Feed(self._background, partial(deltas, call=call))
        try:
            while (delta := self._wait(feed.next())) is not None:
                yield delta
        finally:
            feed.close()

    async def _adeltas(self, call: Call) -> AsyncIterator[Delta]:
        feed = Feed(self._background, partial(deltas, call=call))
        try:
            while (delta := await asyncio.wrap_future(feed.next())) is not None:
                yield delta
        finally:
            feed.close()


async def _nothing(context: Context) -> None:
    """A call that only waits until the engine is ready."""


def _is_several(endpoint: Endpoint, sent: object) -> bool:
    """Whether a list holds prompts or conversations, and is not one itself."""
    if not isinstance(sent, list | tuple):
        return False
    if endpoint == "chat":
        return bool(sent) and all(isinstance(each, list | tuple) for each in sent)
    return not sent or all(isinstance(each, str | list | tuple) for each in sent)

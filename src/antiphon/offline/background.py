"""A thread with an event loop of its own, on which one engine runs and calls from anywhere are made.

Owns the thread, from the finding of the model to the end of the engine's process. It promises that a call from any
thread, with or without an event loop, runs here and hands its outcome back; that cancelling the outcome cancels the
call; and that after `close` no process is left and every call that was still running has failed. The engine's process
dies with this thread, so nothing that happens to the program can leave it behind.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from rich.console import Console

from antiphon.api.context import Context
from antiphon.config import EngineConfig, ServerConfig
from antiphon.errors import NotReady
from antiphon.loading.model import resolve_model
from antiphon.offline.running import running_context

T = TypeVar("T")

_FAREWELL_SECONDS = 5.0  # for calls to notice that their engine is gone


class Background:
    """Starts with its construction; loading goes on behind, and calls wait for it."""

    def __init__(self, engine: EngineConfig, settings: ServerConfig) -> None:
        self._engine = engine
        self._settings = settings
        self._process_id = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._context: asyncio.Future[Context] = self._loop.create_future()
        self._context.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at by every call
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._lock = threading.RLock()
        self._finding = True  # the model; it may be on its way from a hub, and cannot be interrupted
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="antiphon-engine", daemon=True)
        self._thread.start()
        self._started.wait()

    def submit(self, call: Callable[[Context], Coroutine[Any, Any, T]]) -> Future[T]:
        """Make a call once the engine is ready; the outcome may be awaited, waited for, or cancelled, anywhere.

        Raises:
            NotReady: this engine is closed.
        """
        if os.getpid() != self._process_id:
            raise NotReady("This engine was made in another process; make one here, or spawn processes, not fork them.")
        with self._lock:  # nothing is handed to the loop behind the word to end it, or it would wait for ever
            if self._closed:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(self._call(call), self._loop)

    def close(self) -> None:
        """End the engine, and wait until it is gone. Again, or in a child of the process, it does nothing."""
        if os.getpid() != self._process_id:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._main_task.cancel)
        # A garbage collection may close an engine in its own thread, which must not wait for itself.
        if threading.current_thread() is not self._thread and not self._finding:
            self._thread.join()

    async def _call(self, call: Callable[[Context], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await call(await asyncio.shield(self._context))
        except NotReady:
            if self._closed:
                raise _closed() from None
            raise
        finally:
            self._calls.discard(task)

    # --- in the thread

    def _run(self) -> None:
        with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._main_task = task
        self._started.set()
        try:
            await self._serve()
        except Exception as error:
            self._tell(error)
            await asyncio.Event().wait()  # every call is told, until somebody closes this
        finally:
            self._tell(_closed())
            await self._dismiss()

    async def _serve(self) -> None:
        console = Console(stderr=True, highlight=False)
        try:
            found = resolve_model(self._engine.model, console, hub=self._settings.hub, offline=self._settings.offline)
        finally:
            self._finding = False
        async with running_context(found, self._engine, self._settings) as context:
            self._context.set_result(context)
            await asyncio.Event().wait()  # until cancelled

    def _tell(self, error: Exception) -> None:
        if not self._context.done():
            self._context.set_exception(error)

    async def _dismiss(self) -> None:
        if self._calls:
            await asyncio.wait(self._calls, timeout=_FAREWELL_SECONDS)


def _closed() -> NotReady:
    return NotReady("This engine is closed.")

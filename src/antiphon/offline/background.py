"""A thread with its own event loop, on which one engine runs and all calls are made.

Owns the thread, from locating the model to the end of the engine's process. It promises that a call from any thread,
with or without an event loop, runs here and returns its result; that cancelling the result cancels the call; and that
after `close` no process is left and every call that was still running has failed. The engine's process dies with this
thread, so it ends with the program, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from antiphon.api.context import Context
from antiphon.config import EngineConfig, ServerConfig
from antiphon.errors import NotReady
from antiphon.loading.model import resolve_model
from antiphon.offline.running import running_context
from antiphon.terminal import console_on

T = TypeVar("T")

_FAREWELL_SECONDS = 5.0  # for calls to end after their engine was closed


class Background:
    """Starts when constructed; the model is loaded in the background, and calls wait for it."""

    def __init__(self, engine: EngineConfig, settings: ServerConfig) -> None:
        self._engine = engine
        self._settings = settings
        self._process_id = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._context: asyncio.Future[Context] = self._loop.create_future()
        self._context.add_done_callback(lambda done: done.cancelled() or done.exception())  # every call looks at it
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._lock = threading.RLock()
        self._finding = True  # the model; a download cannot be interrupted
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="antiphon-engine", daemon=True)
        self._thread.start()
        self._started.wait()

    def submit(self, call: Callable[[Context], Coroutine[Any, Any, T]]) -> Future[T]:
        """Make a call once the engine is ready; its result may be awaited, waited for or cancelled from anywhere.

        Raises:
            NotReady: this engine is closed.
        """
        if os.getpid() != self._process_id:
            raise NotReady(
                "This engine was made in another process; make one in this process, or use spawn instead of fork."
            )
        with self._lock:  # after the loop was stopped, a new call would wait forever
            if self._closed:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(self._call(call), self._loop)

    def close(self) -> None:
        """End the engine and wait until it is gone. Called again, or in a forked child, it does nothing."""
        if os.getpid() != self._process_id:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._main_task.cancel)
        # The garbage collector may call this on the engine's own thread, which must not wait for itself.
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
            await asyncio.Event().wait()  # every call fails with it, until this is closed
        finally:
            self._tell(_closed())
            await self._dismiss()

    async def _serve(self) -> None:
        console = console_on(stderr=True)
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

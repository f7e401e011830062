"""The models of a host: finds what a front serves, downloads it once, and checks that it is the same on both machines.

The front sends the name of its model as it was typed, and digests of its files. One model is prepared at a time, so
that several engines that start together download it once. Nothing is kept open: each engine inherits files that were
opened, and compared, for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from antiphon.config import EngineConfig
from antiphon.errors import ConfigError
from antiphon.model_digest import Digests, check_same_model
from antiphon.model_files import ModelFiles

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The settings of an engine with this machine's files. `close` when the engine has inherited them."""

    config: EngineConfig
    files: ModelFiles

    def close(self) -> None:
        self.files.close()


class Models:
    """Prepares models, one at a time."""

    def __init__(self, console: Console, *, only: str = "", hub: str = "huggingface", offline: bool = False) -> None:
        """`console`: for the progress of downloads; `only`: the model of all engines; empty: what a front asks for."""
        self._console = console
        self._only = only
        self._hub = hub
        self._offline = offline
        self._digests = Digests()
        self._turn = asyncio.Lock()

    async def prepare(self, config: EngineConfig, expected: dict[str, str]) -> Prepared:
        """The model of a front's engine, with files on this machine. `expected`: digests of the front's files.

        Raises:
            CheckpointError: it is not here, cannot be served, or differs from the front's.
            HubError: it cannot be downloaded.
            ConfigError: the front named no model.
        """
        if config.fake:
            return Prepared(config, ModelFiles())
        async with self._turn:
            return await in_thread(lambda: self._prepare(config, expected))

    def _prepare(self, config: EngineConfig, expected: dict[str, str]) -> Prepared:
        # Only now: looking for models imports tokenizers and hubs, which takes a second.
        from antiphon.formats import open_checkpoint
        from antiphon.loading.model import resolve_model

        wanted = self._only or config.typed_model
        if not wanted:
            raise ConfigError("the server did not say which model to load; start the engine host with MODEL")
        found = resolve_model(wanted, self._console, hub=self._hub, offline=self._offline)
        files = open_checkpoint(found.path).files
        try:
            check_same_model(expected, str(found.path), files.opened, self._digests)
        except BaseException:
            files.close()
            raise
        return Prepared(replace(config, model=str(found.path), files=files.opened), files)


async def in_thread(work: Callable[[], T]) -> T:
    """The result of blocking work. If nobody waits for it any more, it does not hold up the end of this process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # there is one if there is no error

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="prepare-model", daemon=True).start()
    return await done

"""Operations on the engines and the settings, for the admin routes and for signals.

Owns the rule that one operation runs at a time, and the record of the latest ones. An operation that fails at once is
an error for the request that asked for it; a longer one continues in the background, and its record says how it ended.
This module knows the engines by their client, and reloading as a function; it does not know routes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

from msgspec import UNSET, Struct, UnsetType

from antiphon.api.errors import internal_error
from antiphon.engine.client import EngineView
from antiphon.errors import AntiphonError, Conflict, NoSuchEngine, NotEnoughMemory, NotFound, OperationInProgress

_AT_ONCE_SECONDS = 0.1  # an operation that ends within this time is answered with its result
_IN_PROGRESS = "operation_in_progress"
_KEPT = 50  # records of operations

Kind = Literal["add", "remove", "drain", "resume", "restart", "restart_all", "reload"]

logger = logging.getLogger(__name__)


class SettingChange(Struct, kw_only=True):
    """A setting that has another value now."""

    setting: str  # the option's name, without dashes in front
    before: str
    after: str


class SettingKept(Struct, kw_only=True):
    """A setting whose new value has no effect."""

    setting: str
    value: str  # the value in use
    reason: str


class Reloaded(Struct, kw_only=True):
    """What a reload changed."""

    changed: list[SettingChange]
    not_changed: list[SettingKept]
    engines: Literal["kept", "replaced", "refused"]  # refused: `error` of the operation says why
    model: str  # its name now


class OperationError(Struct, kw_only=True):
    """Why an operation failed."""

    message: str
    code: str | None


class Operation(Struct, kw_only=True):
    """The record of an operation."""

    id: str
    kind: Kind
    status: Literal["running", "done", "failed"] = "running"
    engine: int | None = None  # the id of the engine, for operations on one
    replaced_by: int | None = None  # the id of the engine that a restart put in its place
    started_at: float  # seconds since 1970
    ended_at: float | None = None
    error: OperationError | None = None
    reload: Reloaded | UnsetType = UNSET  # the result of a reload


class Engines(Protocol):
    """The operations on engines, as `engine.operations` has them."""

    def engines(self) -> Sequence[EngineView]: ...
    async def add_engine(self, address: str = "") -> int: ...
    async def remove_engine(self, engine_id: int) -> None: ...
    async def drain_engine(self, engine_id: int) -> None: ...
    def resume_engine(self, engine_id: int) -> None: ...
    async def restart_engine(self, engine_id: int) -> int: ...
    async def rolling_restart(self) -> None: ...


class ReloadFailed(AntiphonError):
    """A reload that changed some settings and could not change others."""

    code = "reload_failed"

    def __init__(self, message: str, reloaded: Reloaded) -> None:
        super().__init__(message)
        self.reloaded = reloaded


Reload = Callable[[], Awaitable[Reloaded]]
Work = Callable[[], Awaitable[object]]


class Administration:
    """Runs operations, one at a time."""

    def __init__(self, engines: Engines, reload: Reload | None = None) -> None:
        """`reload`: reads the settings again; None: this server cannot."""
        self.engines = engines
        self._reload = reload
        self._records: dict[str, Operation] = {}  # the oldest first
        self._task: asyncio.Task[None] | None = None
        self._error: AntiphonError | None = None  # of the latest operation
        self._count = 0
        self._reload_next = False  # once the present operation has ended

    @property
    def latest(self) -> Operation | None:
        """The operation that runs, or the last one that ran."""
        return next(reversed(self._records.values()), None)

    def operation(self, operation_id: str) -> Operation:
        """The record of an operation. Raises NotFound if there is none, or not any more."""
        try:
            return self._records[operation_id]
        except KeyError:
            raise NotFound(f"There is no operation {operation_id[:50]!r}, or it is too long ago.") from None

    async def run(self, kind: Kind, work: Work, engine: int | None = None) -> Operation:
        """Start an operation, and return its record: after its end if that comes at once, else while it runs.

        Raises:
            NotFound: there is no engine with that id.
            Conflict: another one runs, or it failed at once.
        """
        before = {view.id for view in self.engines.engines()}
        operation = self.begin(kind, work, engine)
        assert self._task is not None
        task = self._task
        await asyncio.wait({task}, timeout=_AT_ONCE_SECONDS)
        if task.done() and operation.status == "failed" and operation.reload is UNSET:
            assert self._error is not None
            raise self._error
        if kind == "add" and operation.engine is None:  # it loads
            operation.engine = max({view.id for view in self.engines.engines()} - before, default=None)
        return operation

    def begin(self, kind: Kind, work: Work, engine: int | None = None) -> Operation:
        """Start an operation, and return its record at once. Raises Conflict if another one runs."""
        if self._task is not None and not self._task.done():
            running = self.latest
            assert running is not None
            raise Conflict(
                f"Another operation is running ({running.kind}, {running.id}); wait until it ends, and try again.",
                code=_IN_PROGRESS,
            )
        self._count += 1
        operation = Operation(id=f"operation-{self._count}", kind=kind, engine=engine, started_at=time.time())
        self._records[operation.id] = operation
        if len(self._records) > _KEPT:
            del self._records[next(iter(self._records))]
        self._task = asyncio.create_task(self._run(operation, work), name=f"{kind}-{operation.id}")
        return operation

    async def reload(self) -> Operation:
        """Read the settings again. Raises Conflict if this server cannot; otherwise like `run`."""
        if self._reload is None:
            raise Conflict("This server was not started by `antiphon serve`, so it has no settings to read again.")
        return await self.run("reload", self._reload)

    def reload_soon(self) -> None:
        """Read the settings again now, or when the operation that runs has ended."""
        assert self._reload is not None
        if self._task is not None and not self._task.done():
            self._reload_next = True
        else:
            self.begin("reload", self._reload)

    async def stop(self) -> None:
        """Cancel the operation that runs."""
        self._reload_next = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, operation: Operation, work: Work) -> None:
        self._error = None
        try:
            result = await work()
        except AntiphonError as error:
            self._fail(operation, error)
        except asyncio.CancelledError:
            self._fail(operation, Conflict("The server is shutting down."))
            raise
        except Exception:
            logger.exception("unexpected error in the operation %s", operation.kind)
            self._fail(operation, internal_error())
        else:
            operation.status = "done"
            if isinstance(result, Reloaded):
                operation.reload = result
            elif isinstance(result, int) and operation.kind == "add":
                operation.engine = result
            elif isinstance(result, int) and result != operation.engine:
                operation.replaced_by = result
        finally:
            operation.ended_at = time.time()
            if self._reload_next:
                self._reload_next = False
                asyncio.get_running_loop().call_soon(self.reload_soon)

    def _fail(self, operation: Operation, error: AntiphonError) -> None:
        if isinstance(error, ReloadFailed):
            operation.reload = error.reloaded
        self._error = _for_clients(error)
        operation.status = "failed"
        operation.error = OperationError(message=self._error.message, code=self._error.code)


def _for_clients(error: AntiphonError) -> AntiphonError:
    """An error of an operation as that of a request. Those of settings and files are meant for the command line."""
    first = error.message.partition(" ")[0]
    message = f"{first.capitalize() if first.isalpha() else first}{error.message[len(first) :].rstrip('.')}."
    if isinstance(error, NoSuchEngine):
        return NotFound(message, param="engine_id")
    if isinstance(error, OperationInProgress):
        return Conflict(message, code=_IN_PROGRESS)
    if isinstance(error, NotEnoughMemory):
        return Conflict(message, code="not_enough_memory")
    return Conflict(message) if error.http_status == AntiphonError.http_status else error

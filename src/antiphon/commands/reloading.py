"""Reads the settings of a running server again, and takes in what has changed.

Everything is read and checked first: if a file cannot be read or a value is not valid, nothing changes. Then settings
of the server (keys, limits, the certificate, logs) are taken in at once. Settings of the engines and a new model need
new engines, which load beside the old ones; the text side (tokenizer, template, name) changes together with them. If
the new engines cannot be loaded, the old ones go on. Requests that began before a change keep what they began with
(`http.live`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fastapi import FastAPI
from rich.console import Console

from antiphon.api.context import Context
from antiphon.commands.engine_places import memory_elsewhere
from antiphon.commands.logs import change_logging
from antiphon.commands.setting_changes import (
    engine_changes,
    fixed_settings,
    in_words,
    server_changes,
    with_model_of,
)
from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import AntiphonError, ConfigError
from antiphon.formats import open_checkpoint
from antiphon.http.administration import Administration, Reloaded, ReloadFailed, SettingChange, SettingKept
from antiphon.http.app import app_of
from antiphon.http.certificate import Certificate, load_certificate
from antiphon.http.live import LiveApplication
from antiphon.http.server import Server
from antiphon.loading.assembly import Assembly, assemble, open_text_side
from antiphon.loading.model import Found, resolve_model
from antiphon.memory_plan import MemoryPlan
from antiphon.model_files import ModelFile
from antiphon.systemd import Systemd

logger = logging.getLogger(__name__)

Reread = Callable[[], tuple[EngineConfig, ServerConfig]]


@dataclass(frozen=True, slots=True)
class Served:
    """The model that is served, and what it was made of."""

    found: Found
    typed: EngineConfig  # the engines' settings as they were typed
    assembly: Assembly


@dataclass(frozen=True, slots=True)
class _NewModel:
    """A model or settings of engines to be taken in."""

    served: Served
    changes: list[SettingChange]
    needs_engines: bool  # else only the text side changes


class Reloader:
    """Reloads one server."""

    def __init__(
        self,
        reread: Reread,
        served: Served,
        settings: ServerConfig,
        engine: EngineClient,
        console: Console,
        systemd: Systemd,
    ) -> None:
        """`reread`: the settings as they are now; `console`: for messages while a model is downloaded."""
        self.served = served
        self._reread = reread
        self._settings = settings
        self._digest = _digest(settings)
        self._engine = engine
        self._console = console
        self._systemd = systemd
        self._server: Server | None = None
        self._administration: Administration | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._unclosed: list[Assembly] = []  # earlier models that may still be in use

    def attach(self, server: Server, administration: Administration) -> None:
        """Set what is to be reloaded."""
        self._server, self._administration = server, administration
        self._held = self._hold()
        server.app.state.context = replace(self._context, generation=self._engine.generation)

    async def reload(self) -> Reloaded:
        """Take in what has changed.

        Raises:
            ConfigError, CheckpointError, HubError: a file or a setting is not valid; nothing has changed.
            ReloadFailed: the new engines could not be loaded; settings that need none have been taken in.
        """
        self._systemd.reloading()
        try:
            reloaded = await self._reload()
        except ReloadFailed as error:
            _log(error.reloaded)
            logger.error("%s", error.message)
            raise
        except AntiphonError as error:
            logger.error("reload failed, nothing was changed: %s", error.message)
            raise
        finally:
            self._systemd.ready()
        _log(reloaded)
        return reloaded

    async def close(self) -> None:
        """Close the model, and earlier ones that are still open. The engines have stopped."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for assembly in (self.served.assembly, *self._unclosed):
            assembly.model.text.close()
            assembly.checkpoint.files.close()

    async def _reload(self) -> Reloaded:
        typed, wanted = await asyncio.to_thread(self._reread)
        wanted, kept = fixed_settings(self._settings, wanted)
        certificate = await asyncio.to_thread(load_certificate, wanted)
        digest = await asyncio.to_thread(_digest, wanted)
        refusal: AntiphonError | None = None
        new: _NewModel | None = None
        try:
            new = await asyncio.to_thread(self._open, typed, wanted, self._engine.operations.free_memory())
        except _NoRoom as error:
            refusal = error
        changed = await self._take_in(with_model_of(wanted, self._settings), certificate, digest)
        if new is not None:
            refusal = await self._take_in_model(new, wanted)
            changed += [] if refusal else new.changes
        if refusal is not None:
            differing = new.changes if new else self._differences(typed, wanted)
            kept += [SettingKept(setting=each.setting, value=each.before, reason=refusal.message) for each in differing]
            raise ReloadFailed(
                f"the new engines cannot be loaded, so the present ones go on: {refusal.message}",
                self._result(changed, kept, "refused"),
            )
        return self._result(changed, kept, "replaced" if new and new.needs_engines else "kept")

    # --- settings of the server

    async def _take_in(
        self, wanted: ServerConfig, certificate: Certificate | None, digest: bytes
    ) -> list[SettingChange]:
        """Take in settings that need no new engines."""
        assert self._server is not None
        changed = server_changes(self._settings, wanted)
        if digest != self._digest:
            change = SettingChange(setting="ssl-certfile", before="the certificate until now", after="a new one")
            changed.append(change)
        if changed:
            self._engine.apply(wanted)
            self._server.apply(wanted, certificate)
            change_logging(self._settings, wanted)
            self._settings, self._digest = wanted, digest
            context = self._context.renewed(self.served.assembly.model, wanted)
            self._begin(await self._build_app(context), context, _nothing)
        return changed

    # --- the model and the engines

    def _open(self, typed: EngineConfig, wanted: ServerConfig, free_memory: int) -> _NewModel | None:
        """Open what is to be served, if it differs from what is served. Runs in a thread.

        Raises:
            CheckpointError, HubError: it cannot be served.
            _NoRoom: there is not enough memory for it.
        """
        changes = engine_changes(self.served.typed, typed)
        of_model = self._model_changes(wanted)
        found = self._find(typed, wanted)
        checkpoint = open_checkpoint(found.path)
        present = self.served.assembly
        has_new_files = _identity(checkpoint.files.opened) != _identity(present.checkpoint.files.opened)
        needs_engines = has_new_files or bool(changes)
        try:
            if not needs_engines and not of_model:
                return None
            if not needs_engines:  # the engines go on, with the files that they inherited
                renamed = replace(present, model=open_text_side(checkpoint, found, wanted))
                return _NewModel(Served(found, typed, renamed), of_model, needs_engines)
        finally:
            checkpoint.files.close()
        if has_new_files and not any(change.setting == "model" for change in changes):
            changes.append(SettingChange(setting="model", before=f"{found.path} as it was", after="its new contents"))
        assembly = self._assemble(found, typed, wanted, free_memory, has_new_files=has_new_files)
        changes += _sizes(present.plan, assembly.plan)
        return _NewModel(Served(found, typed, assembly), changes + of_model, needs_engines)

    def _assemble(
        self, found: Found, typed: EngineConfig, wanted: ServerConfig, free_memory: int, *, has_new_files: bool
    ) -> Assembly:
        """What new engines need, which load beside the present ones. Raises as `_open`."""
        present = self.served.assembly
        if not has_new_files and typed.quantization == self.served.typed.quantization:
            # What `auto` chose at first: with less free memory it may choose another precision, and other bits.
            typed = replace(typed, quantization=present.plan.quantization.name or typed.quantization)
        try:
            return assemble(found, typed, wanted, free_memory, asyncio.run(memory_elsewhere(typed, wanted)))
        except ConfigError as error:
            message = error.message
            if any(device.startswith("cuda") for device in present.engine.devices):
                message += "; the present engines keep their GPUs until new ones are ready: restart the server instead"
            raise _NoRoom(message) from None

    def _model_changes(self, wanted: ServerConfig) -> list[SettingChange]:
        return server_changes(self._settings, with_model_of(self._settings, wanted))

    def _differences(self, typed: EngineConfig, wanted: ServerConfig) -> list[SettingChange]:
        return engine_changes(self.served.typed, typed) + self._model_changes(wanted)

    def _find(self, typed: EngineConfig, wanted: ServerConfig) -> Found:
        """The model. A name that has not changed is not looked up again, since that may take long."""
        same = typed.model == self.served.typed.model and wanted.hub == self._settings.hub
        if same and self.served.found.typed:
            return self.served.found
        return resolve_model(typed.model, self._console, hub=wanted.hub, offline=wanted.offline)

    async def _take_in_model(self, new: _NewModel, wanted: ServerConfig) -> AntiphonError | None:
        """Load the engines if needed, and serve the model from them; returns why that was not possible."""
        old, model = self.served.assembly, new.served.assembly.model
        settings = with_model_of(self._settings, wanted)
        context = self._context.renewed(model, settings)
        app = await self._build_app(context)
        generation, held = self._engine.generation, self._held

        def switch() -> None:
            """The engines, and the text side that fits them, change in one turn of the event loop."""
            self._unclosed.append(old)
            self.served, self._settings = new.served, settings
            context.degrading.set_memory_reserve(new.served.assembly.memory_reserve)
            self._begin(app, context, lambda: self._close_later(old, generation))

        try:
            if new.needs_engines:
                await self._engine.operations.replace(
                    new.served.assembly.engine, model.text.vocabulary, on_switch=switch
                )
            else:
                switch()
        except AntiphonError as error:
            model.text.close()
            new.served.assembly.checkpoint.files.close()
            return error
        if self._engine.operations.generation_serving(generation) != generation:
            held.close()  # the new engines serve its requests too, so the old ones need not wait for their end
        return None

    def _begin(self, app: FastAPI, context: Context, when_unused: Callable[[], None]) -> None:
        """Answer new requests with another application. It holds the engines' generation until it is not used."""
        held, self._held = self._held, self._hold()
        app.state.context = replace(context, generation=self._engine.generation)
        context.take_over()

        def end() -> None:
            held.close()
            when_unused()

        self._live.replace(app, end)

    def _hold(self) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(self._engine.operations.generation_held())
        return stack

    def _close_later(self, old: Assembly, generation: int) -> None:
        """Close a model that no request needs any more, once no engine needs its files either."""
        old.model.text.close()
        if old.checkpoint is self.served.assembly.checkpoint:
            self._unclosed.remove(old)
            return
        task = asyncio.create_task(self._close_files(old, generation))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_files(self, old: Assembly, generation: int) -> None:
        await self._engine.operations.wait_generation_ended(generation)
        old.checkpoint.files.close()
        self._unclosed.remove(old)

    # --- the application

    @property
    def _context(self) -> Context:
        context = self._live.current.state.context
        assert isinstance(context, Context)
        return context

    @property
    def _live(self) -> LiveApplication:
        assert self._server is not None
        return self._server.live

    async def _build_app(self, context: Context) -> FastAPI:
        assert self._administration is not None
        return await asyncio.to_thread(app_of, context, self._administration)

    def _result(
        self, changed: list[SettingChange], kept: list[SettingKept], engines: Literal["kept", "replaced", "refused"]
    ) -> Reloaded:
        name = self.served.assembly.model.name
        return Reloaded(changed=changed, not_changed=kept, engines=engines, model=name)


class _NoRoom(ConfigError):
    """There is not enough memory for a model beside the present one."""


def _sizes(before: MemoryPlan, after: MemoryPlan) -> list[SettingChange]:
    """What has another size since there is less memory beside the present engines, or more than at start."""
    tokens = [f"{plan.kv_cache_tokens:,} tokens for each engine" for plan in (before, after)]
    return [] if tokens[0] == tokens[1] else [SettingChange(setting="KV cache", before=tokens[0], after=tokens[1])]


def _nothing() -> None:
    pass


def _identity(files: tuple[ModelFile, ...]) -> set[tuple[str, int, int, int, int]]:
    return {(file.path, file.device, file.inode, file.size, file.modified_ns) for file in files}


def _digest(settings: ServerConfig) -> bytes:
    """A digest of the certificate and its key."""
    digest = hashlib.sha256()
    for file in filter(None, (settings.ssl_certfile, settings.ssl_keyfile)):
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.digest()


def _log(reloaded: Reloaded) -> None:
    logger.info("reloaded: %s", in_words(reloaded.changed) or "nothing has changed")
    for each in reloaded.not_changed:
        logger.warning("%s stays %s: %s", each.setting, each.value, each.reason)

"""What an operator does to the engines while they serve: add, remove, drain, restart and replace them.

Owns the order of steps, so that no stream is lost and no request fails because of an operation: a new engine is ready
before an old one stops, where memory allows that; an engine's requests are taken from it, and given to others, before
it stops. One operation runs at a time. Every error says what would work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from antiphon.config import EngineConfig
from antiphon.engine.fleet.engine_handle import EngineHandle, Generation
from antiphon.engine.fleet.fleet import Fleet
from antiphon.engine.fleet.launching import HERE, Place
from antiphon.engine.fleet.view import EngineView
from antiphon.engine.requests.accounts import Accounts
from antiphon.errors import AntiphonError, ConfigError, NoSuchEngine, NotEnoughMemory, OperationInProgress
from antiphon.grammar import Vocabulary
from antiphon.machine import anonymous_bytes
from antiphon.machine.gpu import choose_device, gpu_memory, see_gpus

logger = logging.getLogger(__name__)

_GIB = 1 << 30


class Operations:
    """Changes the engines of one fleet. `current` says which operation runs, for people; None: none."""

    def __init__(self, fleet: Fleet, accounts: Accounts, free_memory: Callable[[], int]) -> None:
        """`free_memory`: how many bytes a new process can use."""
        self.current: str | None = None
        self._fleet = fleet
        self._accounts = accounts
        self._free_memory = free_memory
        self._holders: dict[int, int] = {}  # how many users hold a generation
        self._aliases: dict[int, int] = {}  # generations whose requests the engines of another one compute
        self._ends: dict[int, asyncio.Event] = {}  # of the generations that are being retired
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def generation(self) -> int:
        """The generation of engines that new requests go to."""
        return self._fleet.generation.number

    def engines(self) -> list[EngineView]:
        """A snapshot of each engine, in the order of their ids."""
        return self._fleet.views()

    # --- single engines

    async def add_engine(self, address: str = HERE) -> int:
        """Start one more engine with the settings of the others; returns its id once it is ready.

        `address`: where, as in `--engines`. On this machine, it gets the cores or the GPU of an engine that was
        removed. If there are no such cores, it shares those of the others, and each of them becomes slower.

        Raises:
            NotEnoughMemory: there is no room for it; says how much it needs, and how much is free.
            OperationInProgress: another operation runs.
            ConfigError, CheckpointError, EngineDied: it could not be started, or its GPU has an engine.
            NotReady: the server is being stopped.
        """
        (engine_id,) = await self.add_engines(1, address)
        return engine_id

    async def add_engines(self, count: int, address: str = HERE) -> list[int]:
        """Start several engines side by side; returns the ids of those that could be started, once they are ready.

        Requests that no engine has begun are spread over all engines then. Raises the errors of `add_engine` if none
        could be started.
        """
        with self._alone("an engine is being added" if count == 1 else f"{count} engines are being added"):
            generation = self._fleet.generation
            place = self._fleet.place_at(address)
            if place.is_gpu:
                await self._check_gpu(place.device, generation.config)
            elif place.is_here:
                needed = count * generation.config.memory_bytes
                self._check_memory(needed, "another engine" if count == 1 else f"{count} engines")
            results = await self._all_started(generation, address, count)
            engines = [each for each in results if isinstance(each, EngineHandle)]
            for result in results:
                if isinstance(result, AntiphonError):
                    if not engines:
                        raise result
                    logger.warning("an engine could not be added: %s", result.message)
            self._fleet.dispatcher.spread_waiting(self._fleet.of_generation(generation.number))
            for engine in engines:
                logger.info("engine %d was added", engine.id)
            return [engine.id for engine in engines]

    async def remove_engine(self, engine_id: int) -> None:
        """Move an engine's requests to other engines, then stop it.

        Raises:
            NoSuchEngine: there is no engine with that id.
            OperationInProgress: another operation runs.
            ConfigError: no other engine is ready to take its requests.
        """
        with self._alone(f"engine {engine_id} is being removed"):
            engine = self._engine(engine_id)
            self._check_others(engine, "removed")
            await self._fleet.remove_engine(engine)
            logger.info("engine %d was removed", engine_id)

    async def drain_engine(self, engine_id: int) -> None:
        """Move an engine's requests to other engines, and give it no more until `resume_engine`.

        Raises the same errors as `remove_engine`.
        """
        with self._alone(f"engine {engine_id} is being drained"):
            engine = self._engine(engine_id)
            self._check_others(engine, "drained")
            engine.is_drained = True
            self._fleet.dispatcher.move_requests(engine)

    def resume_engine(self, engine_id: int) -> None:
        """Give a drained engine requests again. Raises NoSuchEngine or OperationInProgress."""
        with self._alone(f"engine {engine_id} is being resumed"):
            engine = self._engine(engine_id)
            engine.is_drained = False
            self._fleet.dispatcher.place_waiting()

    async def restart_engine(self, engine_id: int) -> int:
        """Restart an engine; returns the id of the engine that replaces it, once that is ready.

        If there is enough memory, a new engine loads beside the old one, then the requests move, and the old one stops.
        Otherwise, and on a GPU, the requests move to other engines, or wait if there are none, while the process is
        replaced; the engine then keeps its id.

        Raises:
            NoSuchEngine: there is no engine with that id.
            OperationInProgress: another operation runs.
            ConfigError: it serves the last requests of an earlier generation.
            CheckpointError, EngineDied: the new one could not be started; the old one stays.
            NotReady: the server is being stopped.
        """
        with self._alone(f"engine {engine_id} is being restarted"):
            return await self._restart(self._engine(engine_id))

    async def rolling_restart(self) -> None:
        """Restart all engines one after the other. Raises the errors of `restart_engine`; the rest is then left."""
        with self._alone("all engines are being restarted"):
            for engine in self._fleet.of_generation(self._fleet.generation.number):
                if engine.id in self._fleet.engines:
                    await self._restart(engine)

    async def _restart(self, engine: EngineHandle) -> int:
        if engine.is_retiring:
            raise ConfigError(f"engine {engine.id} serves the last requests of an earlier model, and then stops")
        try:
            if engine.place.is_gpu and not engine.error:
                raise NotEnoughMemory("a GPU has one engine")
            if engine.place.is_here and not engine.place.is_gpu:
                self._check_memory(engine.config.memory_bytes, "an engine beside the old one")
            new = await self._started(self._fleet.generations[engine.generation], engine.place)
        except NotEnoughMemory:
            if engine.error:
                raise
            engine.is_drained, was_drained = True, engine.is_drained
            self._fleet.dispatcher.move_requests(engine)  # without another engine, they wait
            engine.is_drained = was_drained
            engine.replace_process()
            await engine.wait_ready()
            logger.info("engine %d was restarted", engine.id)
            return engine.id
        new.is_drained = engine.is_drained
        await self._fleet.remove_engine(engine)
        logger.info("engine %d was replaced by engine %d", engine.id, new.id)
        return new.id

    # --- all of them

    async def replace(
        self,
        config: EngineConfig,
        vocabulary: Vocabulary | None = None,
        *,
        on_switch: Callable[[], None] = lambda: None,
    ) -> int:
        """Serve with new engines that have other settings or another model; returns their generation.

        As many engines as `config` asks for load beside those that run. When all are ready, requests from then
        on go to them; `on_switch` is called at that moment, and must not raise. Unfinished requests move to the new
        engines only if these compute the same bits. Otherwise the old engines finish them and then stop, which
        `wait_generation_ended` waits for: until then they need the files that their configuration names.

        Raises:
            NotEnoughMemory: there is no room for both; says how much is needed, and how much is free.
            OperationInProgress: another operation runs.
            ConfigError, CheckpointError, EngineDied: the new engines could not be started; nothing has changed.
            NotReady: the server is being stopped.
        """
        with self._alone("the engines are being replaced"):
            old = self._fleet.generation
            if count := sum(not each.startswith("cuda") for each in config.local_devices):
                self._check_memory(count * config.memory_bytes, f"{count} new {'engine' if count == 1 else 'engines'}")
            new = self._fleet.add_generation(config, vocabulary)
            seats = self._fleet.places.divide(config)
            try:
                engines = [self._fleet.start_engine(new, place) for place in self._fleet.places.for_all(config)]
                await asyncio.gather(*(engine.wait_ready() for engine in engines))
            except BaseException:
                for engine in self._fleet.of_generation(new.number):
                    await self._fleet.remove_engine(engine)
                self._fleet.places.divide_as(seats)
                del self._fleet.generations[new.number]
                raise
            self._switch(old, new, on_switch)
            return new.number

    def _switch(self, old: Generation, new: Generation, on_switch: Callable[[], None]) -> None:
        """From one moment to the next: what began stays as it is, what comes now is the new engines'."""
        self._fleet.begin_generation(new)
        on_switch()
        if _have_equal_bits(old, new):
            self._aliases[old.number] = new.number
            self._fleet.adopt(old.number)
            for engine in self._fleet.of_generation(old.number):
                engine.is_drained = True
                self._fleet.dispatcher.move_requests(engine)
        logger.info("generation %d of the engines serves now", new.number)
        self._ends[old.number] = asyncio.Event()
        for engine in self._fleet.of_generation(old.number):
            engine.is_retiring = True
        task = asyncio.create_task(self._retire(old), name=f"retire-generation-{old.number}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, generation: Generation) -> None:
        """Stop the engines of an earlier generation when its last request has ended."""
        self.note_end(generation.number)
        await self._ends[generation.number].wait()
        for engine in self._fleet.of_generation(generation.number):
            await self._fleet.remove_engine(engine)
        del self._fleet.generations[generation.number]
        logger.info("generation %d of the engines has ended", generation.number)

    async def wait_generation_ended(self, generation: int) -> None:
        """Wait until no engine of an earlier generation is left."""
        while generation in self._fleet.generations and self._retiring:
            await asyncio.gather(*self._retiring, return_exceptions=True)

    def generation_serving(self, generation: int) -> int | None:
        """The generation whose engines compute requests of this one; None if it has ended.

        It is a later one if that computes the same bits.
        """
        while generation in self._aliases:
            generation = self._aliases[generation]
        end = self._ends.get(generation)
        return None if generation not in self._fleet.generations or (end and end.is_set()) else generation

    @contextmanager
    def generation_held(self) -> Iterator[int]:
        """The current generation's number, for the time of the block, in which it does not end.

        For the time between reading a request with a model's text side and `generate_all(…, generation=number)`.
        """
        number = self._fleet.generation.number
        self._holders[number] = self._holders.get(number, 0) + 1
        try:
            yield number
        finally:
            self._holders[number] -= 1
            if not self._holders[number]:
                del self._holders[number]
            self.note_end(number)

    def note_end(self, generation: int) -> None:
        """A request of this generation, or a holder, has ended."""
        if (end := self._ends.get(generation)) is None or self._holders.get(generation):
            return
        if not any(each.generation == generation for each in self._accounts.unfinished.values()):
            end.set()

    async def stop(self) -> None:
        """Cancel what is still running; the server ends."""
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    # --- what they share

    def free_memory(self) -> int:
        """Bytes of memory that more engines may use, beside what the present ones have been promised.

        An engine uses its KV cache bit by bit, so this is less than what is free: the running engines will need more.
        """
        promised = sum(
            max(0, each.config.memory_bytes - (anonymous_bytes(each.pid) if each.pid else 0))
            for each in self._fleet.engines.values()
            if each.place.is_here and not each.place.is_gpu
        )
        return max(0, self._free_memory() - promised)

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if self.current:
            raise OperationInProgress(f"{self.current}; try again when that is done")
        self.current = what
        try:
            yield
        finally:
            self.current = None

    def _engine(self, engine_id: int) -> EngineHandle:
        engine = self._fleet.engines.get(engine_id)
        if engine is None:
            known = ", ".join(map(str, self._fleet.engines)) or "none"
            raise NoSuchEngine(f"there is no engine {engine_id}; the engines are: {known}")
        return engine

    async def _started(self, generation: Generation, place: Place) -> EngineHandle:
        """A new engine that is ready. If it cannot be, nothing of it is left."""
        engine = self._fleet.start_engine(generation, place)
        try:
            await engine.wait_ready()
        except BaseException:
            await self._fleet.remove_engine(engine)
            raise
        return engine

    async def _all_started(
        self, generation: Generation, address: str, count: int
    ) -> list[EngineHandle | AntiphonError]:
        """New engines that are ready, or why they are not. If this is cancelled, nothing of them is left."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._started_or_error(generation, address)) for _ in range(count)]
        return [task.result() for task in tasks]

    async def _started_or_error(self, generation: Generation, address: str) -> EngineHandle | AntiphonError:
        try:
            return await self._started(generation, self._fleet.place_at(address))
        except AntiphonError as error:
            return error

    def _check_others(self, engine: EngineHandle, what: str) -> None:
        """Raise ConfigError if no other engine could take over."""
        peers = self._fleet.of_generation(engine.generation)
        if not any(each.takes_requests for each in peers if each is not engine):
            raise ConfigError(
                f"engine {engine.id} cannot be {what}: no other engine is ready to take its requests; add one first"
            )

    async def _check_gpu(self, device: str, config: EngineConfig) -> None:
        """Raise ConfigError if there is an engine on this GPU, or it cannot be used; NotEnoughMemory if it is full."""
        for engine in self._fleet.of_generation(self._fleet.generation.number):
            if engine.place.device == device:
                raise ConfigError(f"{device} has engine {engine.id}; a GPU has one engine, so remove that first")
        if not (device.startswith("cuda") and config.gpu_bytes):  # without a plan, the engine finds out
            return
        gpus = await asyncio.to_thread(see_gpus)
        needed, free = config.gpu_bytes, gpu_memory(choose_device(device, gpus), gpus)
        if needed > free:
            raise NotEnoughMemory(
                f"an engine with the KV cache of the others would need {needed / _GIB:.1f} GiB of {device}, which has "
                f"{free / _GIB:.1f} GiB free; serve with a lower --kv-cache-tokens"
            )
        self._check_memory(config.host_bytes, f"an engine on {device}")

    def _check_memory(self, needed: int, what: str) -> None:
        """Raise NotEnoughMemory if less main memory than that is free."""
        free = self.free_memory()
        if needed > free:
            raise NotEnoughMemory(
                f"{what} would need {needed / _GIB:.1f} GiB of memory, and {free / _GIB:.1f} GiB are free; "
                "free some, or serve with a lower --kv-cache-tokens"
            )


def _have_equal_bits(one: Generation, other: Generation) -> bool:
    """Whether engines of both compute the same answers, so that a stream may move from one to the other."""
    said = [(each.info.context_length, each.info.system_fingerprint) if each.info else None for each in (one, other)]
    return _what_decides_bits(one) == _what_decides_bits(other) and said[0] == said[1]


def _what_decides_bits(generation: Generation) -> tuple[object, ...]:
    config = generation.config
    files = {(file.path, file.device, file.inode, file.size, file.modified_ns) for file in config.files}
    return (
        files or config.model,
        config.quantization,
        config.kv_cache_type,
        config.activations,
        config.context_length,  # RoPE scaling may depend on it
        config.fake,
        config.fake_settings,
        generation.vocabulary,
    )

"""The host: accepts fronts, lets them prove that they know the secret, and gives each an engine of its own.

Owns the listening socket, the sessions, and the machine's memory, cores and GPUs that they share. A connection whose
other side has not proved that costs next to nothing: a few of them may be open at a time, each for some seconds, and
the oldest is closed first.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from antiphon.config import EngineConfig
from antiphon.engine.remote.connecting import CONNECT_SECONDS, accept
from antiphon.engine.remote.handshake import HandshakeError
from antiphon.engine.wire import WireError
from antiphon.engine_host.models import Models
from antiphon.engine_host.session import Session
from antiphon.errors import ConfigError, NotEnoughMemory
from antiphon.machine import THREADS_BESIDE_GPU, Seat, anonymous_bytes, divide, free_memory_bytes, see_processors
from antiphon.machine.gpu import Gpu, choose_devices, gpu_memory, see_gpus

logger = logging.getLogger(__name__)

MAX_SESSIONS = 64  # with an engine, or about to have one
_MAX_UNPROVED = 32  # connections whose other side has not proved itself
_PAUSE_SECONDS = 0.5  # when the system has no descriptor for a connection
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a session has of this machine."""

    memory_bytes: int
    seat: int | None  # None: it is on a GPU
    device: str


class Machine:
    """Memory, cores and GPUs of this machine, shared by the engines on it."""

    def __init__(
        self,
        num_engines: int = 1,
        threads: int = 0,
        free_memory: Callable[[], int] = free_memory_bytes,
        see_gpus: Callable[[], Sequence[Gpu]] = see_gpus,
    ) -> None:
        """`num_engines`: among how many the cores are divided; `threads`: of each; 0: one for each of its cores.

        `see_gpus` may block; it is called in a thread.
        """
        self._seats: Sequence[Seat] = (
            divide(see_processors(), num_engines, threads) if num_engines > 1 else (Seat((), threads),)
        )
        self._threads = threads
        self._free_memory = free_memory
        self._see_gpus = see_gpus
        self._taken: dict[Session, _Taken] = {}

    def free_memory(self) -> int:
        """Bytes that another engine may use, beside what the present ones will need when their KV caches are full."""
        promised = sum(
            max(0, taken.memory_bytes - (anonymous_bytes(session.pid) if session.pid else 0))
            for session, taken in self._taken.items()
        )
        return max(0, self._free_memory() - promised)

    async def gpu_memory(self) -> dict[str, int]:
        """Bytes that are free on each GPU that can be used and has no engine, by its name, as in "cuda:0"."""
        gpus = await asyncio.to_thread(self._see_gpus)
        try:
            usable = choose_devices("cuda", gpus=gpus)
        except ConfigError:
            return {}
        taken = {each.device for each in self._taken.values()}
        return {device: gpu_memory(device, gpus) for device in usable if device not in taken}

    async def take(self, session: Session, config: EngineConfig) -> EngineConfig:
        """Reserve memory, and a share of the cores or a GPU, for an engine; returns its settings on this machine.

        Raises:
            NotEnoughMemory: main memory, or that of the GPUs without an engine, is not enough.
            ConfigError: there is no GPU, or none that can be used.
        """
        if not config.device.startswith("cuda"):
            self._check_memory(config.memory_bytes)
            used = [taken.seat for taken in self._taken.values()]
            seat = min(range(len(self._seats)), key=lambda number: (used.count(number), number))
            self._taken[session] = _Taken(config.memory_bytes, seat, config.device)
            return replace(config, cpus=self._seats[seat].cpus, threads=self._seats[seat].threads)
        gpus = await asyncio.to_thread(self._see_gpus)
        self._check_memory(config.host_bytes)
        device = self._free_gpu(choose_devices(config.device, gpus=gpus), config.gpu_bytes, gpus)
        self._taken[session] = _Taken(config.host_bytes, None, device)
        return replace(config, device=device, cpus=(), threads=self._threads or THREADS_BESIDE_GPU)

    def _check_memory(self, needed: int) -> None:
        free = self.free_memory()
        if needed > free:
            raise NotEnoughMemory(
                f"an engine would need {needed / _GIB:.1f} GiB of memory, and its host has "
                f"{free / _GIB:.1f} GiB free; free some, or serve with a lower --kv-cache-tokens"
            )

    def _free_gpu(self, usable: Sequence[str], needed: int, gpus: Sequence[Gpu]) -> str:
        """Of these GPUs, the one with the most free memory that has no engine. Raises NotEnoughMemory."""
        taken = {each.device for each in self._taken.values()}
        free = {device: gpu_memory(device, gpus) for device in usable if device not in taken}
        if not free:
            raise NotEnoughMemory(
                f"its host has an engine on each GPU that can be used ({', '.join(usable)}); an engine needs its own"
            )
        device = max(free, key=lambda each: free[each])
        if needed > free[device]:
            raise NotEnoughMemory(
                f"an engine would need {needed / _GIB:.1f} GiB of a GPU's memory, and {device} of its host has "
                f"{free[device] / _GIB:.1f} GiB free; serve with a lower --kv-cache-tokens"
            )
        return device

    def give_back(self, session: Session) -> None:
        """The session's engine is gone, if it had one."""
        self._taken.pop(session, None)


class EngineHost:
    """Serves fronts on a listening socket until it is stopped. Run it in the main thread: engines die with it."""

    def __init__(
        self,
        secret: str,
        models: Models,
        machine: Machine,
        *,
        tls: ssl.SSLContext | None = None,
        front_patience: float = 30.0,
    ) -> None:
        """`tls`: the certificate; None: connections are not encrypted. `front_patience`: as for `Session`."""
        self._secret = secret
        self._models = models
        self._machine = machine
        self._tls = tls
        self._front_patience = front_patience
        self._connections: set[asyncio.Task[None]] = set()
        self._unproved: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._num_sessions = 0

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled. All engines have ended when this returns."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    sock, _ = await loop.sock_accept(listener)
                except OSError as error:
                    logger.warning("new connections wait: %s", error.strerror)
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                self._begin(sock)
        finally:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _begin(self, sock: socket.socket) -> None:
        if len(self._unproved) >= _MAX_UNPROVED:
            oldest = next(iter(self._unproved))
            del self._unproved[oldest]
            oldest.cancel()
        task = asyncio.create_task(self._serve_connection(sock), name="front")
        self._connections.add(task)
        self._unproved[task] = None
        task.add_done_callback(lambda _: sock.close())  # also of a task that was cancelled before it began
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda done: self._unproved.pop(done, None))

    async def _serve_connection(self, sock: socket.socket) -> None:
        peer = _name_of(sock)
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await self._streams(sock)
                channel = await accept(reader, writer, self._secret)
            self._unproved.pop(asyncio.current_task(), None)  # type: ignore[arg-type]  # this is in one
            if self._num_sessions >= MAX_SESSIONS:
                logger.warning("%s: refused, because there are %d engines already", peer, MAX_SESSIONS)
                return
            self._num_sessions += 1
            try:
                await Session(channel, self._models, self._machine, self._front_patience, peer).run()
            finally:
                self._num_sessions -= 1
        except (HandshakeError, WireError) as error:
            logger.warning("%s: refused: %s", peer, error)
        except (OSError, TimeoutError) as error:
            logger.debug("%s: left before it proved that it knows the secret (%s)", peer, error)
        except Exception:
            logger.exception("%s: unexpected error", peer)
        finally:
            if writer:
                writer.transport.abort()

    async def _streams(self, sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock.setblocking(False)
        with suppress(OSError):  # a socket of another kind, in tests
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        limits = {"ssl_handshake_timeout": CONNECT_SECONDS} if self._tls else {}
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls, **limits)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError if that is not possible."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise ConfigError(f"cannot listen on --host {host} --port {port}: {error.strerror}") from None


def _name_of(sock: socket.socket) -> str:
    """The other side's address, for the log."""
    try:
        host, port = sock.getpeername()[:2]
    except (OSError, ValueError):
        return "a front"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""The process that talks to Ray for a server: starts and ends actors, and lists nodes, as lines on its pipes ask.

It is a process of its own because Ray ends a process whose cluster is gone, and the server's answers must not end
with it: they go on at engines elsewhere. Ray also starts threads, changes signal handlers and takes 100 MB; all of
that stays here. When this process ends, Ray ends its actors, and so their engines. It ends with the server.

    python -m antiphon.ray.driver CLUSTER PARENT

CLUSTER is what Ray calls an address (`auto`, or HOST:PORT), PARENT the server's process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from typing import Any, BinaryIO

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from antiphon.parent_death import die_with_parent
from antiphon.ray.host_actor import HostActor
from antiphon.ray.messages import (
    Connected,
    Found,
    FromServer,
    Node,
    Nodes,
    NotConnected,
    Place,
    Placed,
    Refused,
    Release,
    decode_from_server,
    encode_line,
)

_CALL_SECONDS = 30.0  # for an actor that runs
_TRY_SECONDS = 5.0
_LONGEST_LINE = 1 << 16
_GIB = 1 << 30

logger = logging.getLogger(__name__)


class Driver:
    """The actors of one server."""

    def __init__(self, write: BinaryIO) -> None:
        self._write = write
        self._actors: dict[int, Any] = {}  # by the id of the question that asked for it
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self, lines: asyncio.StreamReader) -> None:
        """Answer until the server closes the pipe."""
        self.say(Connected())
        while line := await lines.readline():
            ask = decode_from_server(line)
            if isinstance(ask, Release):
                await self._release(ask.ask_id)
            else:
                task = asyncio.create_task(self._answer(ask), name=f"ask-{ask.ask_id}")
                self._tasks[ask.ask_id] = task

    def say(self, message: Connected | NotConnected | Placed | Found | Refused) -> None:
        """Write a line to the server."""
        self._write.write(encode_line(message))
        self._write.flush()

    async def _answer(self, ask: FromServer) -> None:
        try:
            match ask:
                case Place():
                    self.say(await self._place(ask))
                case Nodes():
                    self.say(Found(ask.ask_id, await asyncio.to_thread(_alive_nodes)))
        except TimeoutError:
            await self._release(ask.ask_id)
            self.say(Refused(ask.ask_id, _no_place(ask) if isinstance(ask, Place) else "Ray does not answer"))
        except RayError as error:
            logger.warning("Ray: %s", error)
            await self._release(ask.ask_id)
            self.say(Refused(ask.ask_id, _reason_of(error)))
        finally:
            del self._tasks[ask.ask_id]

    async def _place(self, ask: Place) -> Placed:
        """Start an actor and wait until its host listens. Raises TimeoutError or RayError."""
        actor = await asyncio.to_thread(_start_actor, ask)
        self._actors[ask.ask_id] = actor
        async with asyncio.timeout(ask.timeout):
            node = await asyncio.wrap_future(actor.node.remote().future())
        async with asyncio.timeout(_CALL_SECONDS):
            host, port, secret = await asyncio.wrap_future(actor.listen.remote().future())
        return Placed(ask.ask_id, host, port, secret, node)

    async def _release(self, ask_id: int) -> None:
        if (task := self._tasks.get(ask_id)) and task is not asyncio.current_task():
            task.cancel()
        if (actor := self._actors.pop(ask_id, None)) is not None:
            await asyncio.to_thread(_kill, actor)


def _start_actor(ask: Place) -> Any:  # noqa: ANN401  # Ray's handles have no useful type
    options: dict[str, Any] = {"num_cpus": ask.num_cpus, "resources": ask.resources, "max_restarts": 0}
    if ask.memory_bytes:
        options["memory"] = ask.memory_bytes
    return ray.remote(HostActor).options(**options).remote(ask.num_cpus, ask.hub, ask.offline)


def _kill(actor: Any) -> None:  # noqa: ANN401
    try:
        ray.kill(actor, no_restart=True)
    except (RayError, ValueError) as error:  # its node or the cluster is gone
        logger.info("an actor could not be ended: %s", error)


def _alive_nodes() -> list[Node]:
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [Node(float(each.get("CPU", 0.0)), int(each.get("memory", 0))) for each in resources]


def _no_place(ask: Place) -> str:
    needs = [f"{ask.num_cpus} CPUs"]
    if ask.memory_bytes:
        needs.append(f"{ask.memory_bytes / _GIB:.1f} GiB of memory")
    needs += [f"{amount:g} of {name}" for name, amount in ask.resources.items()]
    return f"no node of the Ray cluster had {' and '.join(needs)} free within {ask.timeout:g} seconds"


def _reason_of(error: RayError) -> str:
    """In words, without traces and addresses, which are in the log."""
    if isinstance(error, RayActorError):
        return "its actor on the Ray cluster died while it was starting, and the server's log says why"
    if isinstance(error, GetTimeoutError):
        return "Ray does not answer"
    return "the Ray cluster refused it, and the server's log says why"


def _check_answer(cluster: str) -> None:
    """Raises OSError if nothing answers at the cluster's address: Ray itself would try for minutes."""
    host, separator, port = cluster.rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _TRY_SECONDS).close()


async def _run(driver: Driver) -> None:
    lines = asyncio.StreamReader(limit=_LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await driver.run(lines)


def main() -> None:
    """Connect to the cluster, and serve the pipes until the server closes them."""
    cluster, parent = sys.argv[1:]
    die_with_parent(int(parent))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever Ray prints must not be taken for an answer
    logging.basicConfig(level=logging.INFO, format="ray driver: %(message)s")
    driver = Driver(answers)
    try:
        _check_answer(cluster)
        ray.init(cluster, namespace="antiphon", log_to_driver=False, configure_logging=False)
    except (OSError, RayError, RuntimeError, ValueError) as error:
        logger.warning("Ray: %s", error)
        driver.say(NotConnected(f"no Ray cluster can be reached at {cluster!r}; `ray status` says whether one runs"))
        return
    try:
        asyncio.run(_run(driver))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()

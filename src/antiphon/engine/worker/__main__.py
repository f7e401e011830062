"""The engine process: `python -m antiphon.engine.worker`, which the front starts with a socket and memory to inherit.

Owns how the process behaves. It dies with its parent, whatever state it is in. It leaves SIGINT and SIGTERM to the
front, which lets running requests finish first. It tells the front why it cannot go on before it exits. The first
message says what to load; the rest is the loop's. Nothing else runs in this process, and no other module starts it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from antiphon.config import EngineConfig
from antiphon.engine.progress import Progress
from antiphon.engine.wire import Configure, Connection, Fatal, FatalKind, Loading, Shutdown, WireError
from antiphon.engine.worker.loop import EngineLoop
from antiphon.errors import AntiphonError, CheckpointError, ConfigError, NotEnoughMemory
from antiphon.grammar import Vocabulary
from antiphon.log_writer import STDERR, LineWriter
from antiphon.machine import choose_threads, see_processors, stay_on
from antiphon.parent_death import die_with_parent
from antiphon.step import LoadReport, Runner

if TYPE_CHECKING:
    from antiphon.engine.worker.compilation import Compilation

logger = logging.getLogger(__name__)

_LONGEST_MESSAGE = 500  # characters


def main() -> int:
    """Serve the front until it says stop or is gone; the exit status is 0 unless something went wrong."""
    parser = argparse.ArgumentParser(description="Antiphon's engine process; the front starts it.")
    parser.add_argument("--fd", type=int, required=True, help="the engine's end of the socketpair")
    parser.add_argument("--progress-fd", type=int, required=True, help="the memory shared with the front")
    parser.add_argument("--parent", type=int, required=True, help="the front's process id")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    messages = LineWriter(STDERR)
    messages.setFormatter(logging.Formatter("%(levelname)s engine: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[messages])
    connection = Connection(socket.socket(fileno=arguments.fd))
    return _serve(connection, Progress(arguments.progress_fd))


def _serve(connection: Connection, progress: Progress) -> int:
    try:
        _run(connection, progress)
    except WireError:
        logger.exception("the front broke the protocol")
        return 1
    except (EOFError, ConnectionError):
        return 0  # the front is gone, so there is nobody to report to
    except Exception as error:
        if not isinstance(error, (AntiphonError, MemoryError)):
            logger.exception("the engine cannot go on")
        connection.send(_last_message(error))
        return 1
    return 0


def _run(connection: Connection, progress: Progress) -> None:
    def report(fraction: float, phase: str) -> None:
        progress.bump()
        connection.send(Loading(fraction, phase))

    config, vocabulary = _first_message(connection)
    with closing(_create_runner(config, progress, report)) as runner:
        EngineLoop(config, runner, connection, progress, _create_compilation(vocabulary)).run()


def _first_message(connection: Connection) -> tuple[EngineConfig, Vocabulary | None]:
    match list(connection.receive(wait=True)):
        case [Configure(config, vocabulary)]:
            return config, vocabulary
        case [Configure(), Shutdown()]:
            raise EOFError("stopped before loading began")
        case messages:
            raise WireError(f"expected Configure, not {messages}")


def _create_runner(config: EngineConfig, progress: Progress, report: LoadReport) -> Runner:
    """The runner that the settings ask for; imported only now, so that the fake one needs nothing compiled."""
    if config.fake:
        from antiphon.runtime.fake import AheadFakeRunner, FakeRunner

        return AheadFakeRunner(config) if config.fake_settings.looks_ahead else FakeRunner(config)
    if config.device == "cpu":
        from antiphon.runtime.cpu import create_runner

        return create_runner(_with_threads(config), progress.counter, report)
    from antiphon.runtime import accelerator

    return accelerator.create_runner(_with_threads(config), progress.counter, report)


def _with_threads(config: EngineConfig) -> EngineConfig:
    """The settings with the number of threads decided.

    Keeps this process on the CPUs that the front chose for it, or else on one NUMA node if it needs no more.
    """
    if config.cpus:
        try:
            os.sched_setaffinity(0, config.cpus)
        except OSError as error:
            logger.warning("cannot stay on the CPUs chosen for this engine: %s", error.strerror)
    choice = choose_threads(see_processors(), config.threads)
    try:
        stay_on(choice.node)
    except OSError as error:  # a sandbox may forbid it; the threads then run on every node, only slower
        logger.warning("cannot stay on NUMA node %s: %s", choice.node and choice.node.id, error.strerror)
    return replace(config, threads=choice.threads)


def _create_compilation(vocabulary: Vocabulary | None) -> Compilation | None:
    """What makes matchers of grammars; its library is imported only where there may be some."""
    if vocabulary is None:
        return None
    from antiphon.engine.worker.compilation import Compilation

    return Compilation(vocabulary)


def _last_message(error: Exception) -> Fatal:
    match error:
        case CheckpointError():
            return Fatal(FatalKind.CHECKPOINT, error.message)
        case NotEnoughMemory():
            return Fatal(FatalKind.MEMORY, error.message)
        case ConfigError():
            return Fatal(FatalKind.CONFIG, error.message)
        case MemoryError():
            return Fatal(FatalKind.MEMORY, NotEnoughMemory().message)
        case _:
            message = " ".join(str(error).split())  # some have pages
            return Fatal(FatalKind.INTERNAL, f"{type(error).__name__}: {message[:_LONGEST_MESSAGE]}")


if __name__ == "__main__":
    sys.exit(main())

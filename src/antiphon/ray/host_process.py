"""The process that an actor starts: an engine host at a free port, for one server. It ends with the actor.

It is not part of the actor's own process because Ray decides which event loop runs there. The secret comes as the first
line on standard input; the port goes as the only line to standard output.

    python -m antiphon.ray.host_process ADDRESS NUM_CPUS HUB OFFLINE PARENT
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys

from antiphon.engine_host.host import EngineHost, Machine
from antiphon.engine_host.models import Models
from antiphon.parent_death import die_with_parent
from antiphon.terminal import console_on

_BACKLOG = 16


def main() -> None:
    """Serve until killed."""
    address, num_cpus, hub, offline, parent = sys.argv[1:]
    die_with_parent(int(parent))
    secret = sys.stdin.readline().strip()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, format="engine host: %(message)s")
    models = Models(console_on(stderr=True), hub=hub, offline=offline == "offline")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family, backlog=_BACKLOG)
    answer.write(f"{listener.getsockname()[1]}\n")
    answer.close()
    asyncio.run(EngineHost(secret, models, Machine(1, int(num_cpus))).serve(listener))


if __name__ == "__main__":
    main()

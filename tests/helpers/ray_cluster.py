"""A real Ray cluster of several nodes on this machine, in a process of its own; run as a script, it is that process.

It starts nodes as asked on its standard input, and ends them all when that is closed. Nodes have no dashboard, which
the tests do not need, and which takes long to import.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from patience import PATIENCE
from processes import is_gone

_STORE_BYTES = 80 << 20
_OPTIONAL = "aiohttp_cors"  # without it, Ray starts without its dashboard


@dataclass
class RayCluster:
    """A cluster that runs."""

    process: subprocess.Popen[str]
    address: str

    def processes(self, name: str) -> list[int]:
        """The cluster's processes with a name in their command line, the oldest first."""
        return [pid for pid in descendants(self.process.pid) if name in command_line(pid)]

    def add_node(self, num_cpus: int) -> None:
        """Start another node."""
        self.say(f"add {num_cpus}")

    def kill_node(self) -> None:
        """End the node that was added last, as if its machine had lost its power."""
        self.say("kill")

    def say(self, what: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, "the cluster has ended"
        return answer


@contextmanager
def ray_cluster(folder: Path, *num_cpus: int) -> Iterator[RayCluster]:
    """A cluster whose nodes have so many CPUs, beside a head without any. Afterwards nothing of it is left."""
    missing = folder / "without"
    missing.mkdir()
    (missing / f"{_OPTIONAL}.py").write_text("raise ModuleNotFoundError('the tests need no dashboard')\n")
    environment = os.environ | {
        "PYTHONPATH": str(missing),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "100",
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120",
    }
    with (folder / "cluster.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__], env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    everything: list[int] = []
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, (folder / "cluster.log").read_text()
        cluster = RayCluster(process, address)
        for each in num_cpus:
            cluster.add_node(each)
        yield cluster
        everything = descendants(process.pid)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
    # Ray's agents notice within seconds that their node's daemon is gone.
    deadline = time.monotonic() + PATIENCE
    while (left := [pid for pid in everything if not is_gone(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, [command_line(pid) for pid in left]


def descendants(pid: int) -> list[int]:
    """All processes that a process has started, and that those have started."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                parents.setdefault(int(parent), []).append(int(folder.name))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return sorted(found)


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def free_ports() -> dict[str, int]:
    """Ports for a node's own processes, which a slow machine starts too late to be asked for them."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.socket() for _ in names]
    try:
        for each in sockets:
            each.bind(("", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    finally:
        for each in sockets:
            each.close()


def announce_ports(ports: dict[str, int]) -> None:
    """Write the files in which a node's own processes tell their ports, as soon as the node looks for them.

    A node gives up if these processes need more than 15 seconds to start, as they do on a machine that is busy with
    other tests. They have the ports that they were given anyway.
    """
    while True:
        for pid in descendants(os.getpid()):
            line = command_line(pid)
            node, session = re.search(r"--node_id=(\w+)", line), re.search(r"--session_dir=(\S+)", line)
            for name, port in ports.items() if node and session else ():
                file = Path(session[1], f"{name}_{node[1]}")
                if not file.exists() and file.parent.exists():
                    file.with_suffix(".new").write_text(str(port))
                    file.with_suffix(".new").rename(file)
        time.sleep(0.2)


def main() -> None:
    """Serve standard input."""
    with suppress(OSError):  # Ray's many processes go first here, where that is allowed
        Path("/proc/self/autogroup").write_text("-15")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
    ports = free_ports()
    threading.Thread(target=announce_ports, args=(ports,), daemon=True).start()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options, **ports})
    nodes = []
    print(cluster.address, file=answers, flush=True)
    try:
        for line in sys.stdin:
            match line.split():
                case ["add", num_cpus]:
                    ports.update(free_ports())
                    nodes.append(cluster.add_node(num_cpus=int(num_cpus), **options, **ports))
                case ["kill"]:
                    cluster.remove_node(nodes.pop(), allow_graceful=False)
            print("done", file=answers, flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()

"""The actor that Ray starts on a node: it starts an engine host for one server, and the host ends with it.

Only the server gets the host's secret, through Ray. When the actor's process ends, in whatever way, the kernel ends the
host and its engine (`parent_death`).
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import ray

_SECRET_BYTES = 32


class HostActor:
    """An engine host. Ray calls its methods in the main thread, which lives as long as the actor."""

    def __init__(self, num_cpus: int, hub: str, offline: bool) -> None:
        """`num_cpus`: threads of the engine; `hub`, `offline`: where to look for a model that is given by name."""
        self._arguments = [str(num_cpus), hub, "offline" if offline else "online"]
        self._host: subprocess.Popen[str] | None = None

    def node(self) -> str:
        """The id of the node on which it was placed."""
        return str(ray.get_runtime_context().get_node_id())

    def listen(self) -> tuple[str, int, str]:
        """Start the host on the node's own address; returns that address, the port, and the secret.

        Raises RuntimeError if the host does not start; its log says why.
        """
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        secret = secrets.token_hex(_SECRET_BYTES)
        self._host = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "antiphon.ray.host_process", address, *self._arguments, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        self._host.stdin.write(f"{secret}\n")
        self._host.stdin.flush()
        port = self._host.stdout.readline().strip()
        if not port:
            raise RuntimeError("the engine host did not start, and the log of this actor says why")
        return address, int(port), secret

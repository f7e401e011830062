"""Real reverse proxies with generated configurations, on free ports, in front of servers that tests started."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
from http_server import Served
from patience import PATIENCE, wait_until
from processes import children
from programs import haproxy, nginx

from antiphon.proxies.addresses import Address, backend_address
from antiphon.proxies.haproxy import add_server_commands, haproxy_cfg
from antiphon.proxies.nginx import nginx_conf
from antiphon.proxies.settings import ProxySettings

PROXIES = ("nginx", "haproxy")
MAX_BODY_BYTES = 300_000  # of the servers below, and so of the proxies
Pair = tuple[Served, Served]


def address_of(url: str) -> Address:
    """The address of a server, from its URL."""
    return backend_address("--backend", url.partition("://")[2].strip("/"))


def free_address() -> Address:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", probe.getsockname()[1])


class Proxy:
    """A proxy that runs. Its servers are named s1, s2 … in the order of their first use."""

    def __init__(self, kind: str, settings: ProxySettings, folder: Path) -> None:
        self.kind, self.settings = kind, settings
        self._folder = folder
        self._file = folder / f"{kind}.conf"
        self._names = {address: f"s{number}" for number, address in enumerate(settings.backends, 1)}
        self._write()
        check = [nginx(), "-t", "-c", str(self._file)] if kind == "nginx" else [haproxy(), "-c", "-f", str(self._file)]
        checked = subprocess.run(check, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        assert "warn" not in checked.stderr.lower(), checked.stderr
        self._log = (folder / "log").open("w+")
        command = (
            [nginx(), "-g", "daemon off;", "-c", str(self._file)]
            if kind == "nginx"
            else [haproxy(), "-W", "-f", str(self._file)]
        )
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.certificate else "http"
        return f"{scheme}://{self.settings.listen[0].text}{self.settings.path.rstrip('/')}"

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def wait_ready(self) -> None:
        """Wait until it listens."""

        def is_listening() -> bool:
            assert self.process.poll() is None, self.log
            with socket.socket() as probe:
                return probe.connect_ex((self.settings.listen[0].host, self.settings.listen[0].port)) == 0

        wait_until(is_listening, "the proxy does not listen")

    def wait_serving(self) -> None:
        """Wait until a server answers through it: on a busy machine, HAProxy's checks of the servers may be late."""
        wait_until(
            lambda: httpx2.get(f"{self.url}/health", trust_env=False, timeout=PATIENCE).status_code == 200,
            "no server answers through the proxy",
        )

    def reload(self) -> None:
        """Have it read its file again; returns when new processes have taken over."""
        before = set(self._workers())
        self.process.send_signal(signal.SIGHUP if self.kind == "nginx" else signal.SIGUSR2)
        wait_until(lambda: bool(self._workers()) and not before & set(self._workers()), f"no reload: {self.log}")

    def use(self, backends: Sequence[Address]) -> None:
        """Send new requests to these servers only, without a restart: as an operator adds and drains servers."""
        if self.kind == "nginx":
            self.settings = replace(self.settings, backends=tuple(backends))
            self._write()
            self.reload()
            return
        for address in backends:
            if address not in self._names:
                self._names[address] = f"s{len(self._names) + 1}"
                for command in add_server_commands(self.settings, self._names[address], address):
                    self.command(command)
        for address, name in self._names.items():
            state = "ready" if address in backends else "drain"
            for section in ("antiphon", "stored_responses"):
                self.command(f"set server {section}/{name} state {state}")
        wait_until(lambda: all(self.is_up(self._names[each]) for each in backends), "a server is not up")

    def command(self, text: str) -> str:
        """Send a command to HAProxy's runtime socket; return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(f"{self.settings.runtime_dir}/admin.sock")
            connection.sendall(text.encode() + b"\n")
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        if not text.startswith("show "):  # HAProxy reports an error by any other answer
            assert answer.strip() in ("", "New server registered."), f"{text}: {answer}"
        return answer

    def stop(self) -> None:
        self.process.terminate()
        family = [self.process.pid, *children(self.process.pid)]
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self._log.close()

    def until_queued(self) -> None:
        """Wait until a request waits in HAProxy's queue."""
        wait_until(lambda: self._figure("BACKEND", "qcur") != "0", "nothing waits")

    def is_up(self, name: str) -> bool:
        return self._figure(name, "status").startswith("UP")

    def _figure(self, name: str, column: str) -> str:
        """A figure of the servers' section of HAProxy's statistics; see its management guide, section 9.1."""
        columns, *rows = self.command("show stat").removeprefix("# ").splitlines()
        for row in filter(None, rows):
            figures = dict(zip(columns.split(","), row.split(","), strict=False))
            if (figures["pxname"], figures["svname"]) == ("antiphon", name):
                return figures[column]
        return ""

    def _workers(self) -> list[int]:
        """Processes that take new connections."""
        if self.kind == "nginx":
            titles = {pid: _title(pid) for pid in children(self.process.pid)}
            return [pid for pid, title in titles.items() if b"worker process" in title and b"shutting" not in title]
        with suppress(OSError):
            for line in self.command("show info").splitlines():
                if line.startswith("Pid: "):
                    return [int(line.removeprefix("Pid: "))]
        return []

    def _write(self) -> None:
        write = nginx_conf if self.kind == "nginx" else haproxy_cfg
        self._file.write_text(write(self.settings))


@contextmanager
def proxied(kind: str, urls: Sequence[str], folder: Path, **settings: object) -> Iterator[Proxy]:
    """A proxy of a kind in front of the servers with these URLs."""
    folder = folder / f"{kind}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    user = "root" if kind == "nginx" and os.geteuid() == 0 else ""  # its workers write into the test's folder
    defaults = {"metrics_listen": None, "user": user, "drain_seconds": 600.0}
    listen, backends = (free_address(),), tuple(map(address_of, urls))
    with TemporaryDirectory(prefix="proxy-") as runtime:  # a socket's path has at most 97 characters
        chosen = ProxySettings(backends=backends, listen=listen, **({"runtime_dir": runtime} | defaults | settings))
        proxy = Proxy(kind, chosen, folder)
        try:
            proxy.wait_ready()
            yield proxy
        finally:
            proxy.stop()


def trusting(certificate: Path) -> ssl.SSLContext:
    """What a client uses that trusts a certificate."""
    return ssl.create_default_context(cafile=str(certificate))


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""

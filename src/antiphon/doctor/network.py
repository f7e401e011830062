"""Checks of the network on this machine: whether the port is free, who has it, and proxies of the environment.

Source of the tables of sockets: proc(5), /proc/net/tcp.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator, Mapping
from itertools import takewhile

from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.host import Host
from antiphon.machine.kernel_files import read

_LISTENS = "0A"  # the state of a listening socket in /proc/net/tcp
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_OURS = re.compile(r"antiphon")


def port(host: Host, address: str, number: int) -> Iterator[Finding]:
    """Whether a server could listen there; `address` and `number` as in `antiphon serve --host --port`."""
    if number == 0:
        yield ok("the server will choose a free port")
        return
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        yield _not_free(host, address, number, error)
    else:
        yield ok(f"{address} port {number} is free")


def _not_free(host: Host, address: str, number: int, error: OSError) -> Finding:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return problem(
            f"{address} is not an address of this machine",
            why="The server cannot listen on it.",
            fix="ip -brief address  # lists the addresses; --host 0.0.0.0 listens on all of them",
        )
    if error.errno == errno.EACCES:
        return problem(
            f"port {number} is reserved for root",
            why="An ordinary user may listen on higher ports only.",
            fix=f"antiphon serve --port 8000  # or: sudo sysctl net.ipv4.ip_unprivileged_port_start={number}",
        )
    if error.errno != errno.EADDRINUSE:
        return problem(
            f"cannot listen on {address} port {number}: {error.strerror}",
            why="The server cannot start there.",
            fix="antiphon serve --port 0  # any free port",
        )
    holder = _holder(host, number)
    if holder is None:
        return problem(
            f"port {number} is taken, by a process that you may not see",
            why="The server cannot listen on it.",
            fix=f"sudo ss -ltnp 'sport = :{number}'  # shows it; or antiphon serve --port 0",
        )
    pid, words = holder
    if any(map(_OURS.search, words)):
        return note(
            f"port {number} is taken by an Antiphon server (process {pid}: {_shown(words)})",
            why="A second server needs another port.",
            fix=f"kill {pid}  # ends it after its answers; or antiphon serve --port 0",
        )
    return problem(
        f"port {number} is taken by process {pid}: {_shown(words)}",
        why="The server cannot listen on it.",
        fix=f"kill {pid}  # if it is not needed; or antiphon serve --port 0",
    )


def _holder(host: Host, number: int) -> tuple[int, list[str]] | None:
    """The process that listens on a port, and the words of its command; None if it cannot be seen."""
    sockets = {f"socket:[{inode}]" for inode in listening_inodes(host, number)}
    for folder in (host.root / "proc").glob("[0-9]*"):
        try:
            descriptors = list((folder / "fd").iterdir())
        except OSError:  # another user's, or gone
            continue
        if any(_target(path) in sockets for path in map(str, descriptors)):
            words = read(folder / "cmdline").rstrip("\0").split("\0")
            return int(folder.name), words if words[0] else [read(folder / "comm").strip()]
    return None


def _shown(words: list[str]) -> str:
    """A command for people: the program and what follows up to the first option, which may be a secret."""
    rest = takewhile(lambda word: word == "-m" or not word.startswith("-"), words[1:])
    return " ".join([os.path.basename(words[0]), *rest])[:80]


def listening_inodes(host: Host, number: int) -> set[str]:
    """Inodes of the sockets that listen on a port, of IPv4 and IPv6."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in host.text(f"/proc/net/{table}").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTENS and _port_of(fields[1]) == number:
                found.add(fields[9])
    return found


def _port_of(address: str) -> int | None:
    """The port of "0100007F:1F90"."""
    port = address.rpartition(":")[2]
    return int(port, 16) if re.fullmatch(r"[0-9A-Fa-f]{4}", port) else None


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def proxies(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether clients on this machine would reach a local server through a proxy."""
    lowered = {name.lower(): value for name, value in environment.items()}
    used = [name for name in _PROXIES if lowered.get(name)]
    exempt = {part.strip() for part in lowered.get("no_proxy", "").split(",")}
    if not used:
        yield ok("no proxy is set in the environment")
    elif exempt & {"*", "127.0.0.1", "localhost", "127.0.0.0/8"}:
        yield ok(f"{', '.join(used)} set, local addresses exempt")
    else:
        yield warning(
            f"{', '.join(used)} set, and no_proxy does not name local addresses",
            why="curl and most clients send requests for 127.0.0.1 to the proxy, which cannot reach this machine's.",
            fix="export no_proxy=localhost,127.0.0.1,::1",
        )

"""Images that are built and containers that run without a daemon or a registry, with a store of their own.

Buildah builds, Podman runs with runc (crun refuses machines that mount both versions of control groups). The base image
is made by mmdebstrap from Debian's packages. Everything is below build/images, so that a second run builds only what
has changed; nothing of the machine's own images is used or touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from patience import PATIENCE, wait_until
from real_server import TLS
from scrapes import samples

Finished = subprocess.CompletedProcess[str]

ROOT = Path(__file__).parents[2]
_FOLDER = ROOT / "build" / "images"
_BASE = "localhost/debian:bookworm"
# As Debian's slim images: no documentation but licences, no lists of packages.
_SLIM = (
    *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"),
    *("--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"),
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*',
)
# Certificates that this machine trusts in addition; a build that goes through its proxy needs them.
_TRUSTED = ("/etc/ssl/certs", "/usr/local/share/ca-certificates", "/etc/pip.conf")
_RUNTIME = ("--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "file")
_LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096")
_LOCKED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")  # noqa: S108


def need(*programs: str) -> None:
    """Skip unless these are installed and this is root's process, which may make containers."""
    if os.geteuid() != 0:
        pytest.skip("building and running containers here needs root")
    missing = [program for program in programs if shutil.which(program, path=_path()) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*command: str, check: bool = True, cwd: Path = ROOT, env: Mapping[str, str] = os.environ) -> Finished:
    """Run a program, and fail with what it printed if it fails."""
    environment = {**env, "PATH": f"{env['PATH']}:/usr/sbin:/sbin"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    assert not check or finished.returncode == 0, (
        f"{' '.join(command)}\n{finished.stdout[-4000:]}{finished.stderr[-4000:]}"
    )
    return finished


def trusted() -> list[str]:
    """Options that mount what this machine trusts."""
    return [f"--volume={path}:{path}:ro" for path in _TRUSTED if Path(path).exists()]


def build_image(tag: str, *options: str) -> None:
    """Build this tree's Containerfile on Debian's packages; layers that have not changed are kept."""
    _make_base()
    cached = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--layers", *trusted()]
    _buildah("bud", *cached, "--build-arg", f"BASE={_BASE}", *options, "--tag", tag, str(ROOT))


def build_stand_in(package: str, program: str, *folders: str) -> str:
    """An image of a program that Debian has, in place of its publisher's; `folders` belong to its user. Its tag."""
    tag = f"localhost/{package}:debian"
    if _podman("image", "exists", tag, check=False).returncode == 0:
        return tag
    install = "apt-get update && apt-get install --yes --no-install-recommends wget"
    owned = "".join(f" && install --directory --owner 65534 {folder}" for folder in folders)
    entry = f'ENTRYPOINT ["{program}"]\n' if folders else ""
    text = f"FROM {_BASE}\nRUN {install} {package}{owned}\nUSER 65534\n{entry}"
    with tempfile.TemporaryDirectory() as context:
        Path(context, "Containerfile").write_text(text)
        plain = ("--isolation", "chroot", "--format", "docker", "--pull-never", *trusted())
        _buildah("bud", *plain, "--tag", tag, context)
    return tag


def podman_program(folder: Path) -> None:
    """Write a program `podman` that uses the tests' store, and limits that this machine allows.

    For programs that call `podman` themselves.
    """
    nofile, nproc = " ".join(_LIMITS[:2]), " ".join(_LIMITS[2:])
    program = folder / "podman"
    program.write_text(f"""#!/bin/bash
case "$1" in
  create | run)
    command=$1; shift
    [[ "$*" == *nofile* ]] || set -- {nofile} "$@"
    set -- "$command" {nproc} "$@" ;;
esac
exec {shutil.which("podman")} {" ".join((*_store(), *_RUNTIME))} "$@"
""")
    program.chmod(0o755)


def _make_base() -> None:
    if _podman("image", "exists", _BASE, check=False).returncode == 0:
        return
    archive = _FOLDER / "base.tar"
    run("mmdebstrap", "--variant=minbase", "--include=ca-certificates", *_SLIM, "bookworm", str(archive))
    container = _buildah("from", "scratch").stdout.strip()
    _buildah("add", container, str(archive), "/")
    _buildah("commit", "--rm", container, _BASE)
    archive.unlink()


@dataclass(frozen=True)
class Container:
    """A container that serves a model on a port of this machine."""

    name: str
    url: str

    def metrics(self) -> dict[str, float]:
        return samples(httpx2.get(f"{self.url}/metrics", timeout=PATIENCE, trust_env=False, verify=TLS).text)

    @property
    def log(self) -> str:
        finished = _podman("logs", self.name)
        return finished.stdout + finished.stderr

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(_podman("container", "inspect", self.name).stdout)
        return found

    def control_group(self, controller: str) -> Path:
        """The folder of its control group: of version 1 the controller's, of version 2 the only one."""
        path = self.inspect()["State"]["CgroupPath"].lstrip("/")
        version_1 = Path("/sys/fs/cgroup", controller, path)
        return version_1 if version_1.is_dir() else Path("/sys/fs/cgroup", path)

    @property
    def pids(self) -> list[int]:
        """All its processes, as this machine numbers them; the first one is its process 1."""
        return sorted(map(int, (self.control_group("memory") / "cgroup.procs").read_text().split()))

    def execute(self, *command: str, check: bool = True) -> Finished:
        """Run a command in it."""
        return _podman("exec", self.name, *command, check=check)

    def is_healthy(self) -> bool:
        """Run the image's health check, as a container's runtime does at intervals."""
        return _podman("healthcheck", "run", self.name, check=False).returncode == 0

    def signal(self, name: str) -> None:
        """Send a signal to its process 1."""
        _podman("kill", "--signal", name, self.name)

    def stop(self, seconds: int) -> None:
        """`podman stop`: the image's stop signal, and SIGKILL after that many seconds."""
        _podman("stop", "--time", str(seconds), self.name)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        wait_until(lambda: not self.inspect()["State"]["Running"], "the container does not end")
        return int(self.inspect()["State"]["ExitCode"])


@contextmanager
def running(name: str, tag: str, *arguments: str, options: tuple[str, ...] = (), port: int) -> Iterator[Container]:
    """A container that is ready to serve: without capabilities and with nothing to write to but /tmp."""
    _podman("rm", "--force", "--ignore", name)
    # Without systemd no timer can be made for the health check; the tests run it.
    flags = ("--detach", "--name", name, "--network", "host", "--health-interval", "disable", *_LOCKED, *_LIMITS)
    address = ("--env", "ANTIPHON_HOST=127.0.0.1", "--env", f"ANTIPHON_PORT={port}")
    _podman("run", *flags, *address, *options, tag, *arguments)
    container = Container(name, f"http://127.0.0.1:{port}")
    try:
        wait_until(
            lambda: container.is_healthy() or not container.inspect()["State"]["Running"], "it never got healthy"
        )
        assert container.inspect()["State"]["Running"], container.log
        yield container
        assert "Traceback" not in container.log, container.log
    finally:
        _podman("rm", "--force", "--time", "0", name)


def image_of(tag: str) -> dict[str, Any]:
    """What `podman image inspect` says of an image."""
    (found,) = json.loads(_podman("image", "inspect", tag).stdout)
    return found


def in_image(tag: str, *command: str, options: Sequence[str] = ()) -> str:
    """What a command prints in a container that is made for it, with further `options` of `podman run`."""
    flags = ("--rm", "--network", "none", "--no-healthcheck", *_LOCKED, *_LIMITS, *options)
    return _podman("run", *flags, "--entrypoint", command[0], tag, *command[1:]).stdout


def unused_port() -> int:
    """A port of this machine that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def state_of(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    return dict(re.findall(r"^(\w+):\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M))


def _podman(*arguments: str, check: bool = True) -> Finished:
    _FOLDER.mkdir(parents=True, exist_ok=True)
    # conmon leaves a file named oom in the folder it is started in.
    return run("podman", *_store(), *_RUNTIME, *arguments, check=check, cwd=_FOLDER)


def _buildah(*arguments: str) -> Finished:
    return run("buildah", *_store(), *arguments)


def _store() -> tuple[str, ...]:
    return "--root", str(_FOLDER / "store"), "--runroot", str(_FOLDER / "run")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin:{Path(sys.executable).parent}"

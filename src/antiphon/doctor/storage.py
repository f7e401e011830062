"""Checks of disks: room for downloads, temporary files, the file system and the speed of a model's files.

Sources: proc(5) for mountinfo, open(2) for O_DIRECT.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from antiphon.config import cache_folder
from antiphon.doctor.findings import Finding, note, ok, warning
from antiphon.doctor.host import Host
from antiphon.doctor.memory import amount

_ROOM = 5 << 30  # bytes: a model of 1.5 billion parameters in 16 bits, and some more
_FEW_INODES = 1000
_ESCAPE = re.compile(r"\\([0-7]{3})")
_NETWORK = re.compile(r"nfs4?|cifs|smb3|smbfs|9p|ceph|lustre|glusterfs|beegfs|afs|gpfs|fuse\.(?!fuse-overlayfs).*")
_CHUNK = 4 << 20  # bytes read at once
_NUM_CHUNKS = 16
_READ_SECONDS = 0.5  # after that no more is read
_SLOW_DISK = 200e6  # bytes/s


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    point: str
    kind: str  # "ext4"
    read_only: bool


def parse_mounts(text: str) -> list[Mount]:
    """The mounts of /proc/self/mountinfo; other lines are left out."""
    found = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, details = left.split(" "), right.split(" ")
        if separator and len(fields) > 5 and details[0]:
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
            found.append(Mount(point, details[0], "ro" in fields[5].split(",")))
    return found


def mount_of(path: Path, host: Host) -> Mount | None:
    """The mount that an absolute path is on: the last of those with the longest matching mount point."""
    found = None
    for mount in parse_mounts(host.text("/proc/self/mountinfo")):
        if path.is_relative_to(mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def hub_folder(environment: Mapping[str, str]) -> Path:
    """Where models from Hugging Face are kept, as its own library decides."""
    home = environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def room_for_downloads(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Space and permission in the folders that downloads go to."""
    folders = {"HF_HOME": hub_folder(environment), "ANTIPHON_CACHE": cache_folder()}
    for variable, folder in folders.items():
        yield _room(variable, folder)


def _room(variable: str, folder: Path) -> Finding:
    existing = next((path for path in [folder, *folder.parents] if path.exists()), Path("/"))
    state = os.statvfs(existing)
    free = state.f_bavail * state.f_frsize
    if not os.access(existing, os.W_OK | os.X_OK) or state.f_flag & os.ST_RDONLY:
        return note(
            f"{folder} cannot be written to",
            why="No model can be downloaded to it. Models that are there already can be served.",
            fix=f"export {variable}=/a/folder/you/may/write/to  # containers: mount a volume there",
        )
    if state.f_files and state.f_favail < _FEW_INODES:
        return warning(
            f"the file system of {folder} has room for {state.f_favail:,} more files only",
            why="Downloads need several files for each model.",
            fix=f"df --inodes {existing}  # then delete files, or export {variable}=/another/disk",
        )
    if free < _ROOM:
        return warning(
            f"{amount(free)} are free in {folder}",
            why=f"A model of 1.5 billion parameters takes 1 to 4 GiB, and some room must stay ({amount(_ROOM)}).",
            fix=f"antiphon models  # then: antiphon models remove NAME; or export {variable}=/another/disk",
        )
    return ok(f"{amount(free)} are free in {folder}")


def temporary_files(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether there is a folder for temporary files."""
    named = [environment[name] for name in ("TMPDIR", "TEMP", "TMP") if environment.get(name)]
    usable = next((path for path in [*named, "/tmp", "/var/tmp", "/usr/tmp"] if _is_writable(path)), None)  # noqa: S108
    if usable is None:
        yield warning(
            "no folder for temporary files can be written to",
            why="Serving does not need one, but downloading the demo model and many Python packages do.",
            fix="docker run --tmpfs /tmp …  # systemd: PrivateTmp=yes; elsewhere: export TMPDIR=/a/folder",
        )
    else:
        yield ok(f"temporary files go to {usable}")


def _is_writable(path: str) -> bool:
    try:
        return os.access(path, os.W_OK | os.X_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return False


def file_system(path: Path, host: Host) -> Iterator[Finding]:
    """Whether a model's files are on a disk of this machine."""
    mount = mount_of(path.resolve(), host)
    if mount is None:
        yield ok("the kernel does not say on which file system the model is")
    elif _NETWORK.fullmatch(mount.kind):
        yield warning(
            f"the model is on {mount.kind}, mounted at {mount.point}",
            why="Every start reads all of it over the network. A large embedding stays in the file while the model is "
            "served: if the network stalls, so does a step.",
            fix=f"cp -r {path} /a/local/disk/  # and serve the copy",
        )
    else:
        yield ok(f"the model is on {mount.kind}, mounted at {mount.point}{' read-only' if mount.read_only else ''}")


def reading_speed(file: Path) -> Iterator[Finding]:
    """How fast the disk reads a model's file, past the page cache."""
    rate = read_rate(file)
    if rate is None:
        yield ok("the speed of this file system is not measured: it has no direct reads, or the file is small")
    elif rate < _SLOW_DISK:
        seconds = file.stat().st_size / rate
        yield note(
            f"the disk reads {rate / 1e6:.0f} MB/s, so the first start reads for about {seconds:.0f} s",
            why="A restarted engine finds the file in memory, if that has room for it. The first one waits.",
            fix=f"cat {file} > /dev/null  # before the start; or keep the model on a faster disk",
        )
    else:
        yield ok(f"the disk reads {rate / 1e6:,.0f} MB/s")


def read_rate(file: Path) -> float | None:
    """Bytes/s of direct reads spread over a file; None if that is not possible."""
    size = file.stat().st_size
    if size < _CHUNK * _NUM_CHUNKS:
        return None
    with suppress(OSError), mmap.mmap(-1, _CHUNK) as buffer:  # aligned to a page, as direct reads require
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            started, total = time.perf_counter(), 0
            for index in range(_NUM_CHUNKS):
                total += os.preadv(descriptor, [buffer], size // _NUM_CHUNKS * index // _CHUNK * _CHUNK)
                if time.perf_counter() - started > _READ_SECONDS:
                    break
            return total / (time.perf_counter() - started)
        finally:
            os.close(descriptor)
    return None

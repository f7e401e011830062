"""A wall clock that tests set while programs run: a library that is loaded before the system's own."""

from __future__ import annotations

import mmap
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile long *offset;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("WALL_CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    void *shared = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) abort();
    offset = shared;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (result == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@dataclass(frozen=True)
class WallClock:
    """The wall clock of every program that is started with `environment`."""

    environment: dict[str, str]
    _shared: mmap.mmap

    def set_ahead(self, seconds: int) -> None:
        """Set it to so many seconds after the machine's; negative: before."""
        self._shared[:] = seconds.to_bytes(8, "little", signed=True)


def wall_clock(folder: Path) -> WallClock:
    """A clock that shows the machine's time; skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build a clock with")
    source, library, offset = (folder / name for name in ("clock.c", "clock.so", "clock.offset"))
    source.write_text(_SOURCE)
    offset.write_bytes(bytes(8))
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    with offset.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    return WallClock({"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(offset)}, shared)

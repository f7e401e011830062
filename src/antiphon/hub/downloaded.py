"""What was downloaded from the hubs: a list of it, and its removal.

Owns the way from the caches' files back to names that can be typed, and from a name to the files to delete. They are
shared with other programs, so a removal is a plan first, which says what it would delete; a file that another model or
revision needs stays. Datasets, and repositories with nothing that could be served, are none of our business.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from antiphon.errors import HubError
from antiphon.hub.names import HUGGING_FACE, MODEL_SCOPE, ModelName
from antiphon.hub.selection import HubFile, select

_UNFINISHED = (".antiphon-part", ".incomplete")  # ours, and those of the hub's own tools
_MAIN = "main"


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A model in a cache."""

    name: str  # what to type for it
    size: int  # bytes, of its files; models may share some
    path: Path  # a GGUF file or a Hugging Face folder; of an unfinished download the repository's folder
    last_used: float  # seconds since 1970
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Removal:
    """Files that would be deleted, and the bytes that this would free."""

    paths: tuple[Path, ...]
    size: int
    execute: Callable[[], None]


def downloaded_models() -> list[Downloaded]:
    """Every model in the caches of Hugging Face and, where its library is installed, ModelScope."""
    found = [*_on_hugging_face(), *_unfinished(), *_on_model_scope()]
    return sorted(found, key=lambda model: model.name.lower())


def plan_removal(name: ModelName) -> Removal:
    """What to delete for `name`: with a type or a file that model alone, else the repository, or its revision.

    Raises:
        HubError: nothing of that name was downloaded.
    """
    removal = _model_scope_removal(name) if name.hub == MODEL_SCOPE else _hugging_face_removal(name)
    if removal is None:
        raise HubError(f"{name} was not downloaded; `antiphon models` lists what was")
    return removal


# --- Hugging Face


def _scan() -> Any:  # noqa: ANN401  # its own type, which may be missing
    try:
        return scan_cache_dir(constants.HF_HUB_CACHE)
    except (CacheNotFound, ValueError):  # there is no cache, or a file in its place
        return None


def _repositories(cache: Any) -> Iterator[Any]:  # noqa: ANN401
    yield from (repo for repo in cache.repos if repo.repo_type == "model") if cache else ()


def _files(revision: Any) -> dict[str, Any]:  # noqa: ANN401
    """Path in the repository → the cached file."""
    return {file.file_path.relative_to(revision.snapshot_path).as_posix(): file for file in revision.files}


def _on_hugging_face() -> Iterator[Downloaded]:
    for repo in _repositories(_scan()):
        for revision in repo.revisions:
            files = _files(revision)
            where = "" if _MAIN in revision.refs else f"@{min(revision.refs, default=revision.commit_hash)}"
            for opens, paths in _models(repo.repo_id, files):
                chosen = [files[path] for path in paths]
                yield Downloaded(
                    f"{repo.repo_id}{where}" + (f"/{opens}" if opens else ""),
                    sum(file.size_on_disk for file in chosen),
                    revision.snapshot_path / opens,
                    max(file.blob_last_accessed for file in chosen),
                )


def _models(repo: str, paths: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """The file that each model opens ("" for a folder), and all its files."""
    listing = [HubFile(path) for path in paths]
    seen = set()
    for file in (None, *(path for path in paths if path.lower().endswith(".gguf"))):
        try:
            selection = select(listing, ModelName(HUGGING_FACE, repo, file=file))
        except HubError:
            continue
        if (file is None) == (selection.opens == "") and selection.opens not in seen:
            seen.add(selection.opens)
            yield selection.opens, [each.path for each in selection.files]


def _unfinished() -> Iterator[Downloaded]:
    for folder in Path(constants.HF_HUB_CACHE).glob("models--*"):
        parts = _parts(folder)
        if parts:
            stats = [part.stat() for part in parts]
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            size, last_used = sum(each.st_size for each in stats), max(each.st_mtime for each in stats)
            yield Downloaded(repo, size, folder, last_used, is_whole=False)


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.glob("blobs/*") if path.name.endswith(_UNFINISHED)]


def _hugging_face_removal(name: ModelName) -> Removal | None:
    cache = _scan()
    repo = next((repo for repo in _repositories(cache) if repo.repo_id.lower() == name.repo.lower()), None)
    if repo is None:
        return _removal_of_parts(name)
    # Alone, since a mirror of a repository has the same commits, and revisions are deleted by theirs.
    alone = replace(cache, repos=frozenset({repo}))
    revisions = [each for each in repo.revisions if name.revision in (None, each.commit_hash, *each.refs)]
    if not name.type and not name.file:
        return _removal(alone.delete_revisions(*(each.commit_hash for each in revisions)), revisions)
    chosen = [file for revision in revisions for file in _chosen(name, revision)]
    others = {file for revision in repo.revisions for file in revision.files} - set(chosen)
    if not others:  # the whole repository, with its folders
        return _removal(alone.delete_revisions(*(each.commit_hash for each in repo.revisions)), repo.revisions)
    return _removal(cache.delete_files(*chosen)) if chosen else None


def _chosen(name: ModelName, revision: Any) -> list[Any]:  # noqa: ANN401
    files = _files(revision)
    try:
        return [files[file.path] for file in select(map(HubFile, files), name).files]
    except HubError:
        return []


def _removal(strategy: Any, revisions: Iterable[Any] = ()) -> Removal | None:  # noqa: ANN401
    paths = {*strategy.files, *(file.file_path for revision in revisions for file in revision.files)}
    return Removal(tuple(sorted(paths)), strategy.expected_freed_size, strategy.execute) if paths else None


def _removal_of_parts(name: ModelName) -> Removal | None:
    """A repository of which only a part came."""
    if name.type or name.file or name.revision:
        return None
    parts = _parts(Path(constants.HF_HUB_CACHE, f"models--{name.repo.replace('/', '--')}"))

    def execute() -> None:
        for part in parts:
            part.unlink(missing_ok=True)

    return Removal(tuple(parts), sum(part.stat().st_size for part in parts), execute) if parts else None


# --- ModelScope


def _model_scope_cache() -> Path | None:
    """The folder of ModelScope's models, or None where its library is not installed."""
    try:
        import modelscope_hub
    except ImportError:
        return None
    return Path(modelscope_hub.get_default_config().cache_dir, "models")


def _on_model_scope() -> Iterator[Downloaded]:
    cache = _model_scope_cache()
    for folder in cache.glob("*--*") if cache else ():
        files = [path for path in folder.rglob("*") if path.is_file()]
        if any(path.suffix in (".gguf", ".safetensors") for path in files):
            stats = [path.stat() for path in files if not path.is_symlink()]
            size, last_used = sum(each.st_size for each in stats), max(each.st_atime for each in stats)
            yield Downloaded(f"ms://{folder.name.replace('--', '/', 1)}", size, folder, last_used)


def _model_scope_removal(name: ModelName) -> Removal | None:
    """The whole repository: its library's cache does not tell which files belong to which revision."""
    cache = _model_scope_cache()
    folder = cache / name.repo.replace("/", "--") if cache else None
    if folder is None or not folder.is_dir():
        return None
    if name.type or name.file or name.revision:
        raise HubError(f"of ModelScope only whole repositories can be removed: ms://{name.repo}")
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files if not path.is_symlink())
    return Removal(tuple(files), size, lambda: shutil.rmtree(folder))

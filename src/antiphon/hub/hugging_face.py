"""A repository on Hugging Face, or on the server that HF_ENDPOINT names, and in the cache that its tools share.

`huggingface_hub` supplies tokens, addresses, errors and the cache's documented layout (blobs named after their
checksums, snapshots of links to them), so that vLLM and others find what we download and we find what they did. A
download enters the cache only if its checksum is right.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # its public names, though not marked so
    WeakFileLock,
    build_hf_headers,
    hf_raise_for_status,
)

from antiphon import __version__
from antiphon.errors import HubError, HubUnreachable
from antiphon.hub import transfer
from antiphon.hub.names import ModelName, near_names
from antiphon.hub.repository import Watcher
from antiphon.hub.selection import HubFile

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # a file's name in the cache, so nothing else will do
_COMMIT = re.compile(r"\w[\w.-]*")
_PART = ".antiphon-part"  # ends the name of a partly downloaded blob
_REPLACED = ".antiphon-replaced"  # ends the name of a file that was changed here, and that --verify replaced
_EDITABLE = (".json", ".jinja")
_NEIGHBOURS = 200  # repositories of an owner that are searched for similar names

T = TypeVar("T")


class HuggingFaceRepository:
    """Fulfils `repository.Repository`."""

    label = "Hugging Face"
    cache_setting = "HF_HUB_CACHE"

    def __init__(self, name: ModelName) -> None:
        self._name = name
        self._revision = name.revision or constants.DEFAULT_REVISION
        self._commit = ""
        self._damaged: set[Path] = set()  # blobs that were found damaged
        self._api = HfApi(library_name="antiphon", library_version=__version__)
        self._root = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name.repo, repo_type="model")

    @property
    def is_offline(self) -> bool:
        return constants.HF_HUB_OFFLINE

    @property
    def folder(self) -> Path:
        return self._root / "snapshots" / self._commit

    def list_remote(self) -> Sequence[HubFile]:
        info = self._asked(
            lambda: self._api.model_info(self._name.repo, revision=self._name.revision, files_metadata=True, timeout=30)
        )
        self._commit = info.sha or self._revision
        if not _COMMIT.fullmatch(self._commit):  # it becomes the name of a folder
            raise HubError(f"{self._api.endpoint} names a commit of {self._name.repo} that cannot be one")
        return [
            HubFile(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else sibling.blob_id)
            for sibling in info.siblings or ()
        ]

    def list_cached(self) -> Sequence[HubFile]:
        reference = self._root / "refs" / self._revision
        commit = reference.read_text(errors="replace").strip() if reference.is_file() else self._revision
        self._commit = commit if _COMMIT.fullmatch(commit) else ""
        if not self._commit:
            return []
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return [
            HubFile(path.relative_to(self.folder).as_posix(), path.stat().st_size, _digest_by_name(path))
            for path in found
        ]

    def missing_bytes(self, file: HubFile, *, verify: bool) -> int | None:
        pointer = self.folder / file.path
        if pointer.is_file() and (
            self._is_sound(pointer, file, verify=verify) or (not verify and _may_be_edited(pointer))
        ):
            return None
        blob = self._blob(file)
        if blob.exists():
            if blob.is_file() and self._is_sound(blob, file, verify=verify):
                return 0
            self._damaged.add(blob)
        part = blob.with_name(blob.name + _PART)
        return file.size - (part.stat().st_size if part.exists() else 0)

    def download(self, file: HubFile, watcher: Watcher) -> None:
        blob = self._blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        # The lock that the hub's own tools take, too.
        lock = self._root.parent / ".locks" / self._root.name / f"{blob.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if blob in self._damaged or not blob.exists():
                if blob in self._damaged:
                    watcher.note(
                        f"{file.path} is damaged: its size or checksum is not the hub's. Downloading it again."
                    )
                self._fetch(file, blob, watcher)
                self._damaged.discard(blob)
        self._link(self.folder / file.path, blob)

    def finish(self) -> None:
        reference = self._root / "refs" / self._revision
        if self._commit == self._revision or (reference.is_file() and reference.read_text() == self._commit):
            return
        # In a cache that may only be read, a complete model is still served. Only offline it can't be found by branch.
        with suppress(OSError):
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(self._commit)

    def _link(self, pointer: Path, blob: Path) -> None:
        """Make `pointer` a link to `blob`. A file in its place that the user edited is kept beside it."""
        if pointer.is_symlink() and not pointer.exists():
            pointer.unlink()  # its blob is gone
        if pointer.exists() and not pointer.samefile(blob):
            os.replace(pointer, pointer.with_name(pointer.name + _REPLACED))
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))

    def _is_sound(self, path: Path, file: HubFile, *, verify: bool) -> bool:
        if path.stat().st_size != file.size:
            return False
        return not verify or (file.digest is not None and transfer.has_digest(path, file.digest))

    def _fetch(self, file: HubFile, blob: Path, watcher: Watcher) -> None:
        assert file.digest is not None
        part = blob.with_name(blob.name + _PART)
        try:
            transfer.fetch(
                get_session(),
                hf_hub_url(self._name.repo, file.path, revision=self._commit, endpoint=self._api.endpoint),
                build_hf_headers(library_name="antiphon", library_version=__version__),
                part,
                file.size,
                raise_for_status=hf_raise_for_status,
                gained=watcher.gained,
            )
        except HfHubHTTPError as error:
            raise self._refusal(error) from None
        transfer.check_digest(part, f"{self._name.repo}/{file.path}", file.digest)
        os.replace(part, blob)

    def _blob(self, file: HubFile) -> Path:
        if not _DIGEST.fullmatch(file.digest or ""):
            raise HubError(f"{self._api.endpoint} gives no checksum for {file.path}, so it cannot be checked")
        assert file.digest is not None
        return self._root / "blobs" / file.digest

    def _asked(self, call: Callable[[], T]) -> T:
        """The hub's answer; temporary faults of the hub are retried."""
        for pause in (*transfer.PAUSES, None):
            try:
                return call()
            except HFValidationError as error:
                raise HubError(f"{self._name.repo!r} is not a valid repository name: {error}") from None
            except HfHubHTTPError as error:
                if pause is None or error.response.status_code not in transfer.PASSING:
                    raise self._refusal(error) from None
                time.sleep(pause)
            except httpx2.TransportError as error:
                raise HubUnreachable(
                    f"cannot reach {self._api.endpoint} ({type(error).__name__}). HF_ENDPOINT names another address, "
                    "and --hub modelscope another hub."
                ) from None
        raise AssertionError("the last try raises")

    def _refusal(self, error: HfHubHTTPError) -> HubError:
        """The hub's refusal, with what to do about it."""
        repo, endpoint, status = self._name.repo, self._api.endpoint, error.response.status_code
        if isinstance(error, GatedRepoError) or (status == httpx2.codes.FORBIDDEN and not get_token()):
            return HubError(f"{repo} is gated: accept its terms at {endpoint}/{repo}, then {_how_to_log_in(endpoint)}")
        if isinstance(error, RevisionNotFoundError):
            there = ", ".join(self._revisions()) or "none that the hub tells"
            return HubError(f"{repo} has no revision {self._revision!r}; there are: {there}")
        if isinstance(error, RepositoryNotFoundError):
            near = near_names(repo, self._neighbours())
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            return HubError(
                f"there is no file or folder {repo} here, and no repository of that name at {endpoint}, or it is "
                f"private.{meant} For a private one, {_how_to_log_in(endpoint)}"
            )
        if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            return HubError(f"{endpoint} refuses access to {repo} with this token; {_how_to_log_in(endpoint)}")
        kind = HubUnreachable if status in transfer.PASSING else HubError
        return kind(f"{endpoint} answers for {repo} with status {status}: {error.server_message or 'no reason given'}.")

    def _revisions(self) -> list[str]:
        with suppress(httpx2.HTTPError, HfHubHTTPError):
            refs = self._api.list_repo_refs(self._name.repo)
            return [ref.name for ref in (*refs.branches, *refs.tags)]
        return []

    def _neighbours(self) -> Iterable[str]:
        with suppress(httpx2.HTTPError, HfHubHTTPError):
            owner = self._name.repo.partition("/")[0]
            return [model.id for model in self._api.list_models(author=owner, limit=_NEIGHBOURS)]
        return []


def _how_to_log_in(endpoint: str) -> str:
    return f"make a token at {endpoint}/settings/tokens and set HF_TOKEN to it (or run: hf auth login)."


def _digest_by_name(path: Path) -> str | None:
    """The checksum that a file in the cache should have: what it links to is named after it."""
    name = path.resolve().name
    return name if path.is_symlink() and _DIGEST.fullmatch(name) else None


def _may_be_edited(pointer: Path) -> bool:
    """Whether it is a text file in place of our link: then the user edited it."""
    return not pointer.is_symlink() and pointer.suffix in _EDITABLE

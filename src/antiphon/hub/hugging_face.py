"""A repository on Hugging Face, or on whatever HF_ENDPOINT names, and in the cache that its tools share.

Owns the way from names to files there: what `huggingface_hub` knows of tokens, addresses, refusals and the cache is
used, and the cache keeps its documented layout (blobs under their checksums, snapshots of links to them), so that vLLM
and others find what we bring and we what they brought. It promises that a file is in the cache only when its checksum
was right.
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
_PART = ".antiphon-part"  # of a blob that is on its way
_NEIGHBOURS = 200  # repositories of an owner among which near names are looked for

T = TypeVar("T")


class HuggingFaceRepository:
    """Fulfils `repository.Repository`."""

    label = "Hugging Face"
    cache_setting = "HF_HUB_CACHE"

    def __init__(self, name: ModelName) -> None:
        self._name = name
        self._revision = name.revision or constants.DEFAULT_REVISION
        self._commit = ""
        self._api = HfApi(library_name="antiphon", library_version=__version__)
        self._root = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name.repo, repo_type="model")

    @property
    def is_offline(self) -> bool:
        return constants.HF_HUB_OFFLINE

    @property
    def folder(self) -> Path:
        return self._root / "snapshots" / self._commit

    def ask(self) -> Sequence[HubFile]:
        info = self._asked(
            lambda: self._api.model_info(self._name.repo, revision=self._name.revision, files_metadata=True, timeout=30)
        )
        self._commit = info.sha or self._revision
        return [
            HubFile(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else sibling.blob_id)
            for sibling in info.siblings or ()
        ]

    def look(self) -> Sequence[HubFile]:
        reference = self._root / "refs" / self._revision
        self._commit = reference.read_text().strip() if reference.is_file() else self._revision
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return [HubFile(path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in found]

    def missing_bytes(self, file: HubFile) -> int | None:
        if (self.folder / file.path).is_file():
            return None
        blob = self._blob(file)
        if blob.exists():
            return 0
        part = blob.with_name(blob.name + _PART)
        return file.size - (part.stat().st_size if part.exists() else 0)

    def bring(self, file: HubFile, watcher: Watcher) -> None:
        blob = self._blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        # The lock that the hub's own tools take, too.
        lock = self._root.parent / ".locks" / self._root.name / f"{blob.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not blob.exists():
                self._fetch(file, blob, watcher)
        pointer = self.folder / file.path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))

    def finish(self) -> None:
        if self._commit != self._revision:
            reference = self._root / "refs" / self._revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(self._commit)

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
            raise HubError(f"{self._api.endpoint} gives no checksum for {file.path}, so it could not be checked")
        assert file.digest is not None
        return self._root / "blobs" / file.digest

    def _asked(self, call: Callable[[], T]) -> T:
        """The hub's answer; a passing fault of the hub is given time to pass."""
        for pause in (*transfer.PAUSES, None):
            try:
                return call()
            except HFValidationError as error:
                raise HubError(f"{self._name.repo!r} cannot be a repository: {error}") from None
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
        """The hub's refusal as what to do about it."""
        repo, endpoint, status = self._name.repo, self._api.endpoint, error.response.status_code
        if isinstance(error, GatedRepoError) or (status == httpx2.codes.FORBIDDEN and not get_token()):
            return HubError(f"{repo} is gated: accept its terms at {endpoint}/{repo}, then {_how_to_log_in(endpoint)}")
        if isinstance(error, RevisionNotFoundError):
            there = ", ".join(self._revisions()) or "none that we were told of"
            return HubError(f"{repo} has no revision {self._revision!r}; there are {there}")
        if isinstance(error, RepositoryNotFoundError):
            near = near_names(repo, self._neighbours())
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            return HubError(
                f"there is no file or folder {repo} here, and no repository of that name at {endpoint}, or it is "
                f"private.{meant} For a private one, {_how_to_log_in(endpoint)}"
            )
        if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            return HubError(f"{endpoint} refuses {repo} to the token it was given; {_how_to_log_in(endpoint)}")
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

"""A repository on ModelScope, through ModelScope's own library, an optional extra.

Translates its calls and errors. Resuming, retrying, checksums and the cache are the library's. If it is not installed,
the error says how to install it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from antiphon.errors import HubError, HubUnreachable
from antiphon.hub import transfer
from antiphon.hub.names import ModelName
from antiphon.hub.repository import Watcher
from antiphon.hub.selection import HubFile

try:
    import modelscope_hub
    from modelscope_hub import errors
except ImportError:
    raise HubError(
        "models on ModelScope need its library: pip install 'antiphon[modelscope]' (or: pip install modelscope-hub)"
    ) from None

_DEFAULT_REVISION = "master"
_SMALL = (
    64 << 20
)  # bytes; checksums of files up to this size are compared each time, those of larger ones when downloaded


class ModelScopeRepository:
    """Fulfils `repository.Repository`."""

    label = "ModelScope"
    cache_setting = "MODELSCOPE_CACHE"

    def __init__(self, name: ModelName) -> None:
        self._name = name
        self._revision = name.revision or _DEFAULT_REVISION
        self._damaged: set[str] = set()  # paths of files that were found damaged
        self._api = modelscope_hub.HubApi()
        self._folder = Path(modelscope_hub.get_default_config().cache_dir)

    @property
    def is_offline(self) -> bool:
        return False

    @property
    def folder(self) -> Path:
        return self._folder

    def list_remote(self) -> Sequence[HubFile]:
        with self._translated():
            files = self._api.list_repo_files(self._name.repo, "model", revision=self._revision)
        return [HubFile(file.path, file.size, file.sha256) for file in files if not file.is_dir]

    def list_cached(self) -> Sequence[HubFile]:
        try:
            self._folder = self._api.download_repo(
                self._name.repo, "model", revision=self._revision, local_files_only=True
            )
        except errors.CacheNotFound:
            return []
        found = (path for path in self._folder.rglob("*") if path.is_file())
        return [HubFile(path.relative_to(self._folder).as_posix(), path.stat().st_size) for path in found]

    def missing_bytes(self, file: HubFile, *, verify: bool) -> int | None:
        try:
            path = self._api.download_file(
                self._name.repo, "model", file.path, revision=self._revision, local_files_only=True
            )
        except errors.CacheNotFound:
            return file.size
        self._note_place(path, file)
        compares = verify or file.size <= _SMALL
        if path.stat().st_size == file.size and not (compares and not transfer.has_digest(path, file.digest or "")):
            return None
        self._damaged.add(file.path)
        return file.size

    def download(self, file: HubFile, watcher: Watcher) -> None:
        class Callback(modelscope_hub.ProgressCallback):
            def update(self, size: int) -> None:
                watcher.gained(size)

        if not file.digest:
            raise HubError(f"ModelScope gives no checksum for {file.path}, so it cannot be checked")
        if file.path in self._damaged:
            watcher.note(f"{file.path} is damaged: its size or checksum is not the hub's. Downloading it again.")
        with self._translated():
            path = self._api.downloader.download_file(
                self._name.repo,
                "model",
                file.path,
                revision=self._revision,
                expected_sha256=file.digest,
                file_size=file.size,
                force=file.path in self._damaged,
                progress_callbacks=[Callback],
            )
        self._note_place(path, file)

    def finish(self) -> None:
        """Nothing to do: the library keeps its own records."""

    def _note_place(self, path: Path, file: HubFile) -> None:
        self._folder = path.parents[file.path.count("/")]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The library's errors as ours."""
        repo, revision = self._name.repo, self._name.revision
        try:
            yield
        except (errors.AuthenticationError, errors.PermissionDeniedError):
            raise HubError(
                f"ModelScope refuses {repo}: accept its terms at modelscope.cn/models/{repo}, make a token there, and "
                "set MODELSCOPE_API_TOKEN to it"
            ) from None
        except errors.NotExistError:
            at = f", or no revision {revision!r}" if revision else ""
            raise HubError(f"ModelScope has no {repo}{at}; see modelscope.cn/models for what there is") from None
        except errors.FileIntegrityError as error:
            raise HubError(f"{repo}: the download's checksum is not the hub's ({error.message}); not used") from None
        except (errors.NetworkError, errors.ServerError, errors.RateLimitError, errors.FileDownloadError) as error:
            raise HubUnreachable(f"cannot reach ModelScope ({error.message}).") from None
        except errors.HubError as error:
            raise HubError(f"ModelScope refuses {repo}: {error.message}") from None

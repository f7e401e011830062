"""The chat page's files: read and compressed once, and served from memory.

Owns the paths that exist, their media types, encodings and caching. The files are built by vite from `web/` into
`page_files`: `index.html`, files beside it, and files with a hash in their names below `assets`. Only files that were
there at start are served, by looking up their path in a dict. The page uses relative URLs only, so a proxy may serve it
below any path. It gets its data from the API, like every other client.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

FOLDER = Path(__file__).with_name("page_files")
PATH = "/"  # of the page itself

_INDEX, _HASHED = "/index.html", "/assets/"
_FOREVER, _ALWAYS_ASK = "public, max-age=31536000, immutable", "no-cache"
# Not `mimetypes`, which depends on the machine. The browser believes them: see `edge.security_headers`.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file, ready to be sent."""

    body: bytes
    compressed: bytes | None  # by gzip; None if that saves nothing
    media_type: str
    cache_control: str
    digest: str  # of `body`

    def response(self, request: Request, *, vary: str = "Accept-Encoding") -> Response:
        """The file, compressed if the client accepts that; 304 if the client has it."""
        use_gzip = self.compressed is not None and _accepts_gzip(request.headers.getlist("accept-encoding"))
        etag = f'"{self.digest}-gzip"' if use_gzip else f'"{self.digest}"'
        headers = {"ETag": etag, "Cache-Control": self.cache_control, "Vary": vary}
        if _has(request.headers.getlist("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        if self.compressed is not None and use_gzip:
            return Response(self.compressed, headers=headers | {"Content-Encoding": "gzip"}, media_type=self.media_type)
        return Response(self.body, headers=headers, media_type=self.media_type)


class Page:
    """All files of the page, by their paths on the server."""

    def __init__(self, files: Mapping[str, PageFile]) -> None:
        """`files` has the page itself at `/`."""
        self._files = files

    def index(self, request: Request) -> Response:
        """The page itself."""
        return self._files[PATH].response(request, vary="Accept, Accept-Encoding")

    async def serve(self, request: Request) -> Response:
        """The file at the path of `request`. Raises HTTPException, 404, if there is none."""
        file = self._files.get(request.scope["path"])
        if file is None or request.scope["path"] == PATH:
            raise HTTPException(404)
        return file.response(request)

    def is_open(self, scope: Scope) -> bool:
        """Whether a request gets one of these files, which need no API key."""
        if scope["method"] != "GET" or scope["path"] not in self._files:
            return False
        return scope["path"] != PATH or wants_page(scope)

    def router(self) -> APIRouter:
        """The routes of all files but the page itself, whose path has another answer for programs."""
        router = APIRouter(include_in_schema=False)
        beside = [path for path in self._files if path != PATH and not path.startswith(_HASHED)]
        for path in (*beside, _HASHED + "{name}"):
            router.add_api_route(path, self.serve, methods=["GET"])
        return router


@cache
def read_page(folder: Path = FOLDER) -> Page | None:
    """The page in `folder`; None if it has not been built. Links and what is hidden are left out."""
    if not (folder / "index.html").is_file():
        return None
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    files = {f"/{path.relative_to(folder).as_posix()}": path for path in found}
    return Page(
        {PATH if name == _INDEX else name: _read(name, path) for name, path in files.items() if "/." not in name}
    )


def wants_page(scope: Scope) -> bool:
    """Whether a client prefers a page to JSON: browsers name text/html in `Accept`, programs do not."""
    return "text/html" in _accepted(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")


def _read(name: str, path: Path) -> PageFile:
    body = path.read_bytes()
    compressed = gzip.compress(body, mtime=0)
    return PageFile(
        body,
        compressed if len(compressed) < len(body) else None,
        _MEDIA_TYPES.get(path.suffix, _UNKNOWN_TYPE),
        _FOREVER if name.startswith(_HASHED) else _ALWAYS_ASK,
        hashlib.sha256(body).hexdigest()[:32],
    )


def _accepts_gzip(values: Iterable[str]) -> bool:
    return "gzip" in _accepted(values)


def _accepted(values: Iterable[str]) -> set[str]:
    """The names in an `Accept` or `Accept-Encoding` header, without those of weight 0 (RFC 9110, section 12.4.2)."""
    accepted = set()
    for item in ",".join(values).split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        weights = [each.partition("=")[2].strip() for each in parameters if each.partition("=")[0].strip() == "q"]
        if not any(weight.strip("0.") == "" for weight in weights):
            accepted.add(name)
    return accepted


def _has(values: Iterable[str], etag: str) -> bool:
    """Whether an `If-None-Match` header matches, by weak comparison (RFC 9110, section 13.1.2)."""
    sent = [each.strip().removeprefix("W/") for each in ",".join(values).split(",")]
    return "*" in sent or etag in sent

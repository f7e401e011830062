"""A hub on this machine: real HTTP, with what a client of Hugging Face needs of its API, and faults to order.

Listings and small files come from one host name, large files by a redirect from another, as from a content network.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2

COMMIT = "c0ffee" + "0" * 34
LARGE = 1024  # bytes; from here on a file is stored apart, with a sha256


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Faults:
    """What goes wrong, how often and where."""

    statuses: list[int] = field(default_factory=list)  # the next answers of the API
    file_statuses: list[int] = field(default_factory=list)  # the next answers for files
    cuts: list[int] = field(default_factory=list)  # the next large files end after so many bytes, by force
    instead: dict[str, bytes] = field(default_factory=dict)  # what is sent in a file's place
    ignores_ranges: bool = False


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class FakeHub:
    """What it has, and what it was asked."""

    url: str
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)  # repositories that want a token
    token: str = "hf_good"  # noqa: S105
    faults: Faults = field(default_factory=Faults)
    asked: list[Asked] = field(default_factory=list)

    def files_sent(self) -> list[Asked]:
        """Requests for files' content."""
        return [each for each in self.asked if each.method == "GET" and "/cdn/" in each.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if path.startswith("/cdn/"):
            self._send_large(path.removeprefix("/cdn/"))
        elif path.startswith("/api/models"):
            self._api(path.removeprefix("/api/models").strip("/"))
        else:
            repo, _, rest = path[1:].partition("/resolve/")
            self._file(repo, *rest.split("/", 1))

    def _api(self, path: str) -> None:
        if self.hub.faults.statuses:
            self._send(self.hub.faults.statuses.pop(0), b"{}")
        elif not path:
            (author,) = parse_qs(urlsplit(self.path).query)["author"]
            names = [repo for repo in self.hub.repositories if repo.startswith(author + "/")]
            self._send_json([{"id": name, "modelId": name} for name in names])
        elif path.endswith("/refs"):
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}
            self._send_json({"branches": [branch], "converts": [], "tags": []})
        else:
            repo, _, revision = path.partition("/revision/")
            if self._may(repo) and self._knows(revision or "main"):
                self._send_json({"id": repo, "sha": COMMIT, "siblings": self._siblings(repo)})

    def _siblings(self, repo: str) -> list[dict[str, Any]]:
        found = []
        for path, content in self.hub.repositories[repo].items():
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
            if len(content) >= LARGE:
                sibling["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            found.append(sibling)
        return found

    def _may(self, repo: str) -> bool:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo not in self.hub.repositories:
            # As the real one, to somebody it does not know.
            self._refuse(401 if not token else 404, "RepoNotFound")
        elif repo in self.hub.gated and token != self.hub.token:
            self._refuse(403 if token else 401, "GatedRepo")
        else:
            return True
        return False

    def _knows(self, revision: str) -> bool:
        if revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        return revision in ("main", COMMIT)

    def _file(self, repo: str, revision: str, path: str) -> None:
        if not self._may(repo) or not self._knows(revision):
            return
        content = self.hub.repositories[repo].get(path)
        if content is None:
            self._refuse(404, "EntryNotFound")
        elif len(content) >= LARGE:
            location = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{repo}/{path}"
            linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            self._send(302, b"", {"Location": location, "X-Repo-Commit": COMMIT, **linked})
        else:
            content = self.hub.faults.instead.get(path, content)
            self._send(200, content, {"ETag": f'"{git_sha1(content)}"', "X-Repo-Commit": COMMIT})

    def _send_large(self, path: str) -> None:
        owner, name, file = path.split("/", 2)
        content = self.hub.repositories[f"{owner}/{name}"][file]
        content = self.hub.faults.instead.get(file, content)
        if self.hub.faults.file_statuses:
            self._send(self.hub.faults.file_statuses.pop(0), b"")
            return
        start, status = 0, 200
        wanted = self.headers.get("Range")
        if wanted and not self.hub.faults.ignores_ranges:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
        body = content[start:]
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if status == 206 else {}
        if self.hub.faults.cuts:
            self._send(status, body[: self.hub.faults.cuts.pop(0)], headers, announced=len(body))
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self._send(status, body, headers)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": "no"})

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, announced: int = -1) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if announced < 0 else announced))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def fake_hub(**repositories: dict[str, bytes]) -> Iterator[FakeHub]:
    """A hub that runs for the time of the block; a repository `owner__name` is called owner/name."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        named = {name.replace("__", "/"): files for name, files in repositories.items()}
        handler.hub = FakeHub(f"http://127.0.0.1:{server.server_port}", named)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield handler.hub
        finally:
            server.shutdown()
            thread.join()


def unreachable() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(httpx2.URL(scheme="http", host="127.0.0.1", port=taken.getsockname()[1]))

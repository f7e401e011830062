"""ModelScope's API on this machine, as far as its library asks for it when models are read."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

REVISION = "master"


@dataclass
class FakeModelScope:
    """What it has, and what it was asked."""

    url: str
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    cuts: list[int] = field(default_factory=list)  # the next files end after so many bytes, by force
    instead: dict[str, bytes] = field(default_factory=dict)  # what is sent in a file's place
    sent: list[tuple[str, str | None]] = field(default_factory=list)  # files and the ranges that were asked for


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeModelScope

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        repo, _, action = split.path.removeprefix("/api/v1/models/").partition("/repo")
        if repo not in self.hub.repositories or query.get("Revision", REVISION) != REVISION:
            self._send_json(404, {"Code": 10010205001, "Message": "not found", "Success": False})
        elif repo in self.hub.private:
            self._send_json(403, {"Code": 10010205002, "Message": "no access", "Success": False})
        elif action == "/files":
            files = [
                {"Path": path, "Type": "blob", "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
                for path, content in self.hub.repositories[repo].items()
            ]
            self._send_json(200, {"Code": 200, "Data": {"Files": files}, "Success": True})
        else:
            self._file(repo, query["FilePath"])

    def _file(self, repo: str, path: str) -> None:
        content = self.hub.instead.get(path, self.hub.repositories[repo][path])
        wanted = self.headers.get("Range")
        self.hub.sent.append((path, wanted))
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        body = content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.hub.cuts:
            self.wfile.write(body[: self.hub.cuts.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _send_json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def fake_model_scope() -> Iterator[FakeModelScope]:
    """A hub that runs for the time of the block."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.hub = FakeModelScope(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield handler.hub
        finally:
            server.shutdown()
            thread.join()

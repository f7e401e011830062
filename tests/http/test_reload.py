"""Reloading a running server: by SIGHUP and by `antiphon reload`; what changes, what does not, and what is said."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from certificates import certificate
from patience import PATIENCE, wait_until
from scrapes import samples
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf
from typer.testing import CliRunner

from antiphon.cli import app
from antiphon.errors import AntiphonError

ADMIN_KEY, KEY, OTHER_KEY = "an-admin-key-123456", "sk-of-alice-1234567", "sk-of-bob-123456789"


class Reply(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Service:
    """A server that was started with a file of settings, and its log so far."""

    process: subprocess.Popen[str]
    url: str
    folder: Path

    def write(self, **settings: Any) -> None:
        """Replace the file of settings; `model` and the files of keys stay."""
        given = {
            "port": 0,
            "model": str(self.folder / "model.gguf"),
            "admin_key_file": str(self.folder / "admin-keys"),
        } | settings
        (self.folder / "antiphon.toml").write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
        )

    def hang_up(self, until: str) -> str:
        """Send SIGHUP, wait for a line in the log, return it."""
        seen = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        found: list[str] = []
        wait_until(lambda: bool(found.extend(re.findall(f".*{until}.*", self.log[seen:])) or found), f"no {until!r}")
        return found[0]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def run(self, *arguments: str, key: str = ADMIN_KEY) -> Reply:
        """An `antiphon` command for this server, in this process: starting one takes a second."""
        ran = CliRunner().invoke(app, [*arguments, "--url", self.url], env={"ANTIPHON_ADMIN_KEY": key})
        if isinstance(ran.exception, AntiphonError):
            return Reply(1, ran.stdout, f"error: {ran.exception.message}\n")
        return Reply(ran.exit_code, ran.stdout, ran.stderr)

    def run_process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same as a person types it."""
        command = [sys.executable, "-m", "antiphon", *arguments, "--url", self.url]
        environment = os.environ | {"ANTIPHON_ADMIN_KEY": ADMIN_KEY}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)

    def reload(self) -> dict[str, Any]:
        """`antiphon reload --json`."""
        return dict(json.loads(self.run("reload", "--json").stdout))

    def get(self, path: str, key: str = "", **options: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx2.get(self.url + path, headers=headers, timeout=PATIENCE, trust_env=False, **options)


@contextmanager
def service(folder: Path, **settings: Any) -> Iterator[Service]:
    """A ready server with the fake runner."""
    write_gguf(folder / "model.gguf", metadata(template=CHATML_TEMPLATE))
    (folder / "admin-keys").write_text(f"{ADMIN_KEY}\n")
    command = [sys.executable, "-m", "antiphon", "serve", "--config", str(folder / "antiphon.toml"), "--fake-engine"]
    with (folder / "log").open("w") as log:
        found = Service(None, "", folder)  # type: ignore[arg-type]
        found.write(**settings)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("curl http"), found.log
            found.process, found.url = process, line.split()[1].removesuffix("/v1/chat/completions")
            yield found
            assert process.poll() is None, found.log
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, found.log
        finally:
            process.kill()
            process.communicate()
    assert "Traceback" not in found.log


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("service")) as found:
        yield found


def test_a_reload_without_changes_says_so(server: Service):
    server.write()
    server.hang_up("reloaded: nothing has changed")
    for run in (server.run, server.run_process):
        reply = run("reload")
        assert (reply.returncode, reply.stdout, reply.stderr) == (0, "", "nothing has changed\n")
    assert server.reload()["reload"] == {"changed": [], "not_changed": [], "engines": "kept", "model": "model"}


def test_settings_of_the_server_are_taken_in_at_once_and_fixed_ones_are_named(server: Service):
    server.write(max_queued_requests=7, max_body_bytes=100, status=False, port=1, host="0.0.0.0", page=False)  # noqa: S104
    assert server.hang_up("max-queued-requests: 256 → 7")
    assert "WARNING" in (line := re.findall(".* stays .*", server.log)[-1])
    assert "restart the server" in line
    assert server.get("/v1/status").status_code == 404
    long = httpx2.post(f"{server.url}/v1/completions", json={"prompt": "x" * 100}, timeout=PATIENCE, trust_env=False)
    assert long.status_code == 413
    many = {"prompt": "x", "n": 8, "max_tokens": 1}
    refused = httpx2.post(f"{server.url}/v1/completions", json=many, timeout=PATIENCE, trust_env=False)
    assert refused.status_code == 400
    told = server.reload()["reload"]  # what could not change is named each time
    assert {each["setting"]: each["value"] for each in told["not_changed"]} == {"host": "127.0.0.1", "port": "0"}
    server.write()
    reply = server.run("reload")
    assert "max-body-bytes: 100 → 4194304\n" in reply.stdout
    assert server.get("/v1/status").status_code == 200


def test_keys_change_with_their_files(server: Service):
    keys = server.folder / "api-keys"
    keys.write_text(f"alice: {KEY} requests-per-minute=5\n")
    server.write(api_key_file=str(keys))
    change = server.reload()["reload"]["changed"]
    assert change == [{"setting": "api-keys", "before": "0 keys", "after": "1 key (added: alice)"}]
    assert server.get("/v1/models").status_code == 401
    for _ in range(3):
        reply = httpx2.post(f"{server.url}/ping", headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
    assert reply.headers["x-ratelimit-remaining-requests"] == "2"
    keys.write_text(f"alice: {KEY} requests-per-minute=5\nbob: {OTHER_KEY} weight=2\n")
    assert "1 key → 2 keys (added: bob)" in server.hang_up("api-keys")
    assert server.get("/v1/models", OTHER_KEY).status_code == 200
    reply = httpx2.post(f"{server.url}/ping", headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
    assert reply.headers["x-ratelimit-remaining-requests"] in ("1", "2")  # used before the reload; it fills with time
    assert 'key="bob"' in server.get("/metrics", KEY).text
    keys.write_text(f"bob: {KEY}\n")
    assert "2 keys → 1 key (removed: alice; changed: bob)" in server.hang_up("api-keys")
    assert server.get("/v1/models", OTHER_KEY).status_code == 401
    assert KEY not in server.log
    (server.folder / "admin-keys").write_text("another-admin-key-1\n")
    assert "1 key → 1 key (changed: key-1)" in server.hang_up("admin-keys")
    assert server.get("/admin/engines", ADMIN_KEY).status_code == 401
    assert server.get("/admin/engines", "another-admin-key-1").status_code == 200
    (server.folder / "admin-keys").write_text(f"{ADMIN_KEY}\n")
    server.write()
    server.hang_up("reloaded")
    assert server.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_queued_requests": 0}, "max-queued-requests"),
        ({"max_queued_requets": 3}, "did you mean max-queued-requests"),
        ({"log_level": "loud"}, "loud"),
        ({"max_wait": "long"}, "max_wait must be a number"),
        ({"api_key_file": "/nonexistent/keys"}, "cannot be read"),
        ({"model": "/nonexistent/model.gguf"}, "there is no file or folder"),
        ({"ssl_certfile": "/nonexistent/cert.pem", "max_body_bytes": 5}, "decided at start"),
    ],
)
def test_a_bad_setting_changes_nothing_and_says_why(server: Service, settings: dict[str, Any], says: str):
    server.write(**{"max_body_bytes": 100} | settings)
    if "ssl_certfile" in settings:  # it is not read: the server has no HTTPS
        assert says in server.run("reload").stdout
        server.write()
        server.hang_up("reloaded")
        return
    assert says in server.hang_up("reload failed, nothing was changed")
    reply = server.run("reload")
    assert reply.returncode == 1
    assert reply.stdout == ""
    assert reply.stderr.startswith("error: ")
    assert says in " ".join(reply.stderr.split()).lower()
    body = {"prompt": "x" * 200, "max_tokens": 1}
    answer = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=PATIENCE, trust_env=False)
    assert answer.status_code == 200
    (server.folder / "antiphon.toml").write_text("not = [toml\n")
    assert "is not valid TOML" in server.hang_up("nothing was changed")
    server.write()
    server.hang_up("nothing has changed")


def test_the_commands_say_what_is_wrong(server: Service, tmp_path: Path):
    for command in (["engines"], ["engines", "add"], ["reload"]):
        reply = server.run(*command, key="wrong-key-123456789")
        assert (reply.returncode, reply.stdout) == (1, "")
        assert "The admin key is not valid" in " ".join(reply.stderr.split())
        reply = server.run(*command, key="")
        assert "An admin key is required" in " ".join(reply.stderr.split())
    reply = server.run("engines", "remove", "1")
    assert (reply.returncode, reply.stdout) == (1, "")
    assert "no other engine is ready to take its requests" in " ".join(reply.stderr.split())
    reply = server.run("engines", "drain", "77")
    assert "There is no engine 77" in " ".join(reply.stderr.split())
    assert server.run("engines", "restart").returncode == 2
    nobody = Service(server.process, "http://127.0.0.1:1", server.folder)
    assert "cannot reach a server at http://127.0.0.1:1" in " ".join(nobody.run("engines").stderr.split())
    keys = tmp_path / "keys"
    keys.write_text(f"# whose\nme: {ADMIN_KEY}\n")
    assert server.run("engines", "--admin-key-file", str(keys), key="").returncode == 0


def test_engines_are_added_listed_restarted_and_removed_by_the_command(server: Service):
    assert server.run_process("engines", "add").stderr == "engine 2 is ready\n"
    listed = json.loads(server.run("engines", "list", "--json").stdout)
    assert [engine["state"] for engine in listed["data"]] == ["ready", "ready"]
    shown = server.run("engines").stdout.splitlines()
    assert shown[0].split()[:3] == ["id", "state", "address"]
    assert [line.split()[:3] for line in shown[1:]] == [["1", "ready", "here"], ["2", "ready", "here"]]
    assert server.run("engines", "drain", "1").stderr == "engine 1 has no more work\n"
    assert "drained" in server.run("engines").stdout
    assert server.run("engines", "resume", "1").stderr == "engine 1 gets work again\n"
    operation = json.loads(server.run("engines", "restart", "2", "--json").stdout)
    assert (operation["status"], operation["engine"], operation["replaced_by"]) == ("done", 2, 3)
    assert server.run("engines", "restart", "--all").stderr == "all engines were restarted\n"
    ids = [engine["id"] for engine in json.loads(server.run("engines", "--json").stdout)["data"]]
    assert len(ids) == 2
    assert server.run("engines", "remove", str(ids[0])).stderr == f"engine {ids[0]} is removed\n"


def test_a_new_certificate_is_used_for_new_handshakes(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    cert, key = certificate(first)
    files = {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}
    with service(tmp_path, **files) as server:
        trusts = [ssl.create_default_context(cafile=str(cert))]
        expiry = datetime(2049, 5, 6, tzinfo=UTC)
        other_cert, other_key = certificate(second, not_after=expiry)
        trusts.append(ssl.create_default_context(cafile=str(other_cert)))
        url = server.url.replace("127.0.0.1", "localhost")

        def opens(trust: ssl.SSLContext) -> bool:
            try:
                return httpx2.get(f"{url}/health", verify=trust, trust_env=False, timeout=PATIENCE).is_success
            except httpx2.ConnectError:
                return False

        assert [opens(trust) for trust in trusts] == [True, False]
        with httpx2.Client(base_url=url, verify=trusts[0], trust_env=False, timeout=PATIENCE) as kept:
            kept.get("/health")
            other_cert.replace(cert)
            server.hang_up("nothing was changed.*cannot be used")  # the key does not fit
            assert [opens(trust) for trust in trusts] == [True, False]
            other_key.replace(key)
            server.hang_up("ssl-certfile: the certificate until now → a new one")
            assert [opens(trust) for trust in trusts] == [False, True]
            assert kept.get("/health").is_success  # on the connection that was open
            valid_until = samples(kept.get("/metrics").text)["antiphon_tls_certificate_not_after_timestamp_seconds"]
            assert valid_until == expiry.timestamp()

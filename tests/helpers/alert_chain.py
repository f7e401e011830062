"""Prometheus and Alertmanager as they run elsewhere, and a receiver of their messages."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import httpx2
from patience import PATIENCE, wait_until
from programs import alertmanager, prometheus
from real_server import TLS

Json = dict[str, Any]
_LISTENING = re.compile(r'"Listening on" address=(\S+)')


@dataclass
class Received:
    """What came to the webhook: for each alert and its labels the states, in order, and one text of each alert."""

    states: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def take(self, message: Json) -> None:
        for alert in message["alerts"]:
            name = alert["labels"]["alertname"]
            self.states[name, json.dumps(alert["labels"], sort_keys=True)].append(alert["status"])
            self.texts[name] = alert["annotations"]

    @property
    def fired(self) -> set[str]:
        return {name for (name, _), states in list(self.states.items()) if "firing" in states}

    @property
    def not_resolved(self) -> set[str]:
        """Alerts whose last message was that they fire."""
        return {name for (name, _), states in list(self.states.items()) if states[-1] == "firing"}


@dataclass
class AlertChain:
    """One Alertmanager that is configured as people get it, and one that sends every alert, also the inhibited ones."""

    prometheus: str
    alertmanager: str
    sends_all: str
    received: Received
    seen: set[str] = field(default_factory=set)  # firing in the API
    suppressed: set[str] = field(default_factory=set)

    def has_scraped(self) -> bool:
        """Whether the server's first values are there, which all increases are counted from."""
        try:
            reply = httpx2.get(
                f"{self.prometheus}/api/v1/query?query=up", timeout=PATIENCE, trust_env=False, verify=TLS
            )
        except httpx2.HTTPError:
            return False
        return reply.status_code == 200 and bool(reply.json()["data"]["result"])

    def look(self) -> set[str]:
        """The alerts that fire now."""
        firing = {alert["labels"]["alertname"] for alert in self._alerts(self.sends_all)}
        self.seen |= firing
        for alert in self._alerts(self.alertmanager):
            if alert["status"]["state"] == "suppressed":
                self.suppressed.add(alert["labels"]["alertname"])
        return firing

    def wait_fired(self, names: set[str]) -> None:
        """Wait until each has been seen in the API and come to the webhook."""
        self._wait(lambda: names - (self.seen & self.received.fired), "did not fire")

    def wait_cleared(self, names: set[str]) -> None:
        """Wait until none of them fires, and the webhook has heard of it."""
        self._wait(lambda: names & (self.look() | self.received.not_resolved), "did not clear")

    def _wait(self, missing: Any, complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.look() is not None and (left := missing()):
            assert time.monotonic() < deadline, f"{sorted(left)} {complaint}; {self._state()}"
            time.sleep(0.2)

    def _state(self) -> str:
        """What Prometheus knows, for the report of a failure."""
        found = []
        for query in ("up", "ALERTS", 'sum by (__name__) ({__name__=~"antiphon_(requests|memory|engine)_.*"})'):
            url = f"{self.prometheus}/api/v1/query"
            reply = httpx2.get(url, params={"query": query}, timeout=PATIENCE, trust_env=False, verify=TLS)
            found += [f"{each['metric']} {each['value'][1]}" for each in reply.json()["data"]["result"]]
        return "\n".join(found)

    def _alerts(self, url: str) -> list[Json]:
        return httpx2.get(f"{url}/api/v2/alerts", timeout=PATIENCE, trust_env=False, verify=TLS).json()


@contextmanager
def alert_chain(folder: Path, rules: Json, config: Json, target: str, scrape_interval: str) -> Iterator[AlertChain]:
    """Both programs for the time of the block. `config` is Alertmanager's; its receivers are replaced."""
    with ExitStack() as stack:
        received = Received()
        receiver = stack.enter_context(_receiver(received))
        quiet = config | {"receivers": [{"name": each["name"]} for each in config["receivers"]]}
        everything = {key: value for key, value in config.items() if key != "inhibit_rules"}
        everything["receivers"] = [
            {"name": each["name"], "webhook_configs": [{"url": receiver, "send_resolved": True}]}
            for each in config["receivers"]
        ]
        managers = [
            stack.enter_context(_alertmanager(folder, name, each))
            for name, each in (("inhibiting", quiet), ("everything", everything))
        ]
        (folder / "rules.yml").write_text(json.dumps(rules))  # YAML contains JSON
        addresses = [url.removeprefix("http://") for url in managers]
        job = {
            "job_name": "antiphon",
            "scheme": "https",
            "tls_config": {"insecure_skip_verify": True},
            "static_configs": [{"targets": [target]}],
        }
        settings = {
            "global": {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": addresses}]}]},
            "scrape_configs": [job],
        }
        (folder / "prometheus.yml").write_text(json.dumps(settings))
        command = [
            prometheus(),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            "--web.listen-address=127.0.0.1:0",
            "--rules.alert.resend-delay=1s",
        ]
        chain = AlertChain(stack.enter_context(_listening(command)), *managers, received)
        wait_until(chain.has_scraped, "the server was not scraped")
        yield chain


@contextmanager
def _alertmanager(folder: Path, name: str, config: Json) -> Iterator[str]:
    file = folder / f"{name}.yml"
    file.write_text(json.dumps(config))
    command = [
        alertmanager(),
        f"--config.file={file}",
        f"--storage.path={folder / name}",
        "--web.listen-address=127.0.0.1:0",
        "--cluster.listen-address=",
    ]
    with _listening(command) as url:
        yield url


@contextmanager
def _listening(command: Sequence[str]) -> Iterator[str]:
    """The URL of a program that says in its log where it listens."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log: list[str] = []
    try:
        yield f"http://{_address(process.stderr, log)}"
    finally:
        process.kill()
        process.communicate()


def _address(stderr: IO[str], log: list[str]) -> str:
    for line in stderr:
        log.append(line)
        if found := _LISTENING.search(line):
            # Read on, else the pipe would be full some day.
            threading.Thread(target=log.extend, args=(stderr,), daemon=True).start()
            return found[1]
    raise AssertionError("".join(log))


@contextmanager
def _receiver(received: Received) -> Iterator[str]:
    """A webhook that takes in what it gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()

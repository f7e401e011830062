"""Two servers of the same keys: limits hold for both together, and so do fair shares."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from http_server import Served, serving, until

from antiphon.api_keys import read_admin_keys, read_api_keys
from antiphon.config import ServerConfig
from antiphon.errors import ConfigError
from antiphon.http import peers
from antiphon.request import TokenEvent

ADMIN = "sk-a-key-for-operators"
LIMIT = 12  # requests a minute
KEYS = f"greedy: k1\nmodest: k2\nlimited: k3 requests-per-minute={LIMIT}\n"
PLACES = 4


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: each server must know the other's before it starts."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@asynccontextmanager
async def two_servers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Served, Served]]:
    """Two servers that ask each other twenty times a second."""
    monkeypatch.setattr(peers, "INTERVAL", 0.05)
    (folder / "keys").write_text(KEYS)
    settings: dict[str, Any] = {
        "api_keys": read_api_keys([], str(folder / "keys")),
        "admin_keys": read_admin_keys([ADMIN]),
        "peer_key": ADMIN,
        "max_queued_requests": 600,
        "max_num_sequences": PLACES,
        "fake": {"step_seconds": 0.005, "eos_token_id": -1},
    }
    one, other = free_ports(2)
    async with (
        serving(folder, port=one, peers=(f"http://127.0.0.1:{other}",), **settings) as first,
        serving(folder, port=other, peers=(f"http://127.0.0.1:{one}",), **settings) as second,
    ):
        await until(lambda: all(all(each.server.peers.reached.values()) for each in (first, second)))
        yield first, second


async def post(server: Served, key: str, **fields: Any) -> Any:
    body = {"prompt": "Hello", "max_tokens": 1, **fields}
    return await server.http.post("/v1/completions", json=body, headers={"x-api-key": key})


def remaining(server: Served) -> int:
    """What the limited key may still ask."""
    headers = dict(server.server.app.state.context.rates.headers("limited"))
    return int(headers[b"x-ratelimit-remaining-requests"])


async def test_a_limit_holds_for_both_servers_together(tmp_path, monkeypatch):
    async with two_servers(tmp_path, monkeypatch) as (one, other):
        assert [(await post(one, "k3")).status_code for _ in range(LIMIT // 2)] == [200] * (LIMIT // 2)
        await until(lambda: remaining(other) <= LIMIT // 2 + 1)
        statuses = [(await post(other, "k3")).status_code for _ in range(LIMIT)]
        accepted = LIMIT // 2 + statuses.count(200)
        assert set(statuses) == {200, 429}
        assert LIMIT <= accepted <= LIMIT + 4  # a bucket of 12 a minute gets a new one every 5 seconds


async def test_a_client_that_is_served_by_both_gets_no_second_share(tmp_path, monkeypatch):
    async with two_servers(tmp_path, monkeypatch) as (one, other):
        counts = {"k1": 0, "k2": 0}
        names: dict[str, str] = {}
        key_of = {"greedy": "k1", "modest": "k2"}
        generate_all = other.engine.generate_all

        def noting(requests: Any, terms: Any, **options: Any) -> Any:
            names.update({each.request_id: key_of[each.fairness_id] for each in requests})
            return generate_all(requests, terms, **options)

        def count(event: TokenEvent) -> None:
            counts[names[event.request_id]] += event.token_id is not None

        monkeypatch.setattr(other.engine, "generate_all", noting)
        other.engine.subscribe(count)
        both = [(one, "k1", 60), (other, "k1", 60), (other, "k2", 60)]
        tasks = [
            asyncio.create_task(post(server, key, prompt=f"{number} times", max_tokens=40))
            for server, key, num in both
            for number in range(num)
        ]
        await until(lambda: sum(counts.values()) > 1000)
        counts.update(k1=0, k2=0)  # the servers know of each other now
        await until(lambda: sum(counts.values()) > 1500)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What `greedy` gets from the first server counts here too, so it is far behind.
        assert counts["k2"] > 1.5 * counts["k1"], counts


async def test_usage_is_told_to_operators_only_and_a_peer_that_is_gone_is_seen(tmp_path, monkeypatch):
    async with two_servers(tmp_path, monkeypatch) as (one, other):
        await post(one, "k3", max_tokens=5)
        usage = await one.http.get("/admin/usage", headers={"x-api-key": ADMIN})
        told = usage.json()
        assert told["keys"]["limited"] == {"requests": 1, "tokens": 0}  # no limit of tokens, so none are counted
        assert told["clients"]["limited"] >= 2 * 5
        assert (await one.http.get("/admin/usage", headers={"x-api-key": "k3"})).status_code in (401, 403)
        up = f'antiphon_peer_up{{peer="{str(other.http.base_url).rstrip("/")}"}}'
        headers = {"x-api-key": "k3"}
        assert f"{up} 1.0" in (await one.http.get("/metrics", headers=headers)).text
        await other.server.shutdown()
        await until(lambda: not any(one.server.peers.reached.values()))
        assert f"{up} 0.0" in (await one.http.get("/metrics", headers=headers)).text


def test_peers_need_an_admin_key():
    with pytest.raises(ConfigError, match="--admin-key-file"):
        ServerConfig(peers=("http://10.0.0.6:8000",))

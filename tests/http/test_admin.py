"""The admin routes: who may use them, one operation at a time, and what is answered while one runs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import jsonschema_rs
import pytest
import pytest_asyncio
from http_server import Served, serving

from antiphon.api_keys import read_admin_keys, read_api_keys
from antiphon.config import ServerConfig
from antiphon.errors import ConfigError, NoSuchEngine, NotEnoughMemory, OperationInProgress
from antiphon.http.administration import Administration, Reloaded
from antiphon.http.reference import ADMIN_REFERENCE, REFERENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, ADMIN_KEY, OTHER_ADMIN_KEY = "sk-of-a-user-123456", "of-an-operator-12345", "of-another-operator-1"


@dataclass
class Engine:
    id: int
    state: str = "ready"
    address: str | None = None
    pid: int | None = 1234
    threads: int | None = 2
    generation: int = 0
    running: int = 1
    waiting: int = 2
    tokens_owed: float = 12.4
    kv_cache_usage: float | None = 0.5
    restarts: int = 0
    loading_fraction: float | None = None
    loading_phase: str | None = None
    trouble: str | None = None
    instruction_set: str | None = "avx2"
    fingerprint: str | None = "0123456789abcdef"
    model_fingerprint: str | None = "fedcba9876543210"
    versions: dict[str, str] = field(default_factory=lambda: {"antiphon": "1"})


@dataclass
class Engines:
    """Engines that do nothing; an operation waits for `gate`, and fails with `error` if there is one."""

    there: dict[int, Engine] = field(default_factory=lambda: {1: Engine(1), 2: Engine(2)})
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    called: list[tuple[str, int | None]] = field(default_factory=list)

    def engines(self) -> list[Engine]:
        return list(self.there.values())

    async def _do(self, what: str, engine_id: int | None = None) -> None:
        if engine_id not in (None, *self.there):
            raise NoSuchEngine(f"there is no engine {engine_id}")
        self.called.append((what, engine_id))
        if self.error:
            raise self.error
        await self.gate.wait()

    async def add_engine(self, address: str = "") -> int:
        await self._do(f"add at {address}" if address else "add")
        self.there[3] = Engine(3)
        return 3

    async def remove_engine(self, engine_id: int) -> None:
        await self._do("remove", engine_id)

    async def drain_engine(self, engine_id: int) -> None:
        await self._do("drain", engine_id)

    def resume_engine(self, engine_id: int) -> None:
        self.called.append(("resume", engine_id))

    async def restart_engine(self, engine_id: int) -> int:
        await self._do("restart", engine_id)
        return 5

    async def rolling_restart(self) -> None:
        await self._do("restart_all")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operated(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, Engines]]:
    """A server with API keys and admin keys, and engines that do as they are told."""
    engines = Engines()
    api_keys = read_api_keys([f"user:{KEY}"])
    admin_keys = read_admin_keys([ADMIN_KEY, f"second:{OTHER_ADMIN_KEY}"])

    async def reload() -> Reloaded:
        await engines._do("reload")
        return Reloaded(changed=[], not_changed=[], engines="kept", model="tiny")

    async with serving(
        tmp_path_factory.mktemp("model"),
        api_keys=api_keys,
        admin_keys=admin_keys,
        requests_per_minute=100,
        administration=Administration(engines, reload),
    ) as server:
        yield server, engines


@pytest.fixture
def engines(operated: tuple[Served, Engines]) -> Engines:
    """The engines, as new."""
    _, engines = operated
    engines.error = None
    engines.gate.set()
    engines.called.clear()
    return engines


@pytest.fixture
def server(operated: tuple[Served, Engines], engines: Engines) -> Served:
    return operated[0]


def bearer(key: str = ADMIN_KEY) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


ROUTES = [(method, path.replace("{engine_id}", "1").replace("{operation_id}", "x")) for method, path in ADMIN_REFERENCE]


@pytest.mark.parametrize(
    ("method", "path"), [*ROUTES, ("GET", "/admin"), ("GET", "/admin/"), ("GET", "/admin/nothing")]
)
async def test_only_an_admin_key_opens_an_admin_route(server: Served, engines: Engines, method, path):
    for headers in (
        {},
        bearer(KEY),
        {"x-api-key": KEY},
        bearer(ADMIN_KEY[:-1]),
        bearer("second"),
        {"authorization": "Bearer"},
    ):
        reply = await server.http.request(method, path, headers=headers)
        assert reply.status_code == 401
        assert "admin key" in reply.json()["error"]["message"]
        assert reply.headers["www-authenticate"].startswith("Bearer")
    assert not engines.called
    for headers in (bearer(), {"x-api-key": ADMIN_KEY}, bearer(OTHER_ADMIN_KEY)):
        assert (await server.http.request(method, path, headers=headers)).status_code in (200, 404, 405)


async def test_an_admin_key_opens_nothing_else(server: Served):
    for path in ("/v1/models", "/metrics", "/administration", "/adminx", "//admin/engines"):
        assert (await server.http.get(path, headers=bearer())).status_code == 401
    assert (await server.http.get("/v1/models", headers=bearer(KEY))).status_code == 200


@pytest.mark.parametrize("keys", [{}, {"api_keys": read_api_keys([KEY])}], ids=["open", "with API keys"])
async def test_without_an_admin_key_there_are_no_admin_routes(tmp_path, keys):
    async with serving(tmp_path, **keys) as server:
        for method, path in ROUTES:
            reply = await server.http.request(method, path, headers=bearer(KEY))
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")
        paths = (await server.http.get("/openapi.json", headers=bearer(KEY))).json()["paths"]
        assert not [path for path in paths if path.startswith("/admin")]


async def test_with_an_admin_key_and_no_api_keys_everything_else_stays_open(tmp_path):
    async with serving(tmp_path, admin_keys=read_admin_keys([ADMIN_KEY])) as server:
        assert (await server.http.get("/v1/models")).status_code == 200
        assert (await server.http.get("/admin/engines")).status_code == 401


async def test_the_admin_routes_are_described_and_answer_as_described(server: Served):
    document = (await server.http.get("/openapi.json", headers=bearer(KEY))).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == set(REFERENCE) | set(ADMIN_REFERENCE)
    for method, path in ROUTES:
        template = next(each for each in document["paths"] if _fits(each, path))
        responses = document["paths"][template][method.lower()]["responses"]
        reply = await server.http.request(method, path, headers=bearer())
        schema = responses[str(reply.status_code)]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        validator.validate(reply.json())


def _fits(template: str, path: str) -> bool:
    return template == path.replace("/1", "/{engine_id}").replace("/x", "/{operation_id}")


async def test_engines_are_listed_with_their_state_and_load(server: Served):
    reply = await server.http.get("/admin/engines", headers=bearer())
    assert reply.headers["cache-control"] == "no-store"
    first = reply.json()["data"][0]
    assert first["object"] == "engine"
    assert {"id": 1, "state": "ready", "pid": 1234, "running": 1, "tokens_owed": 12}.items() <= first.items()


async def test_each_route_calls_its_operation(server: Served, engines: Engines):
    for method, path in ROUTES:
        if method != "GET":
            reply = await server.http.request(method, path, headers=bearer())
            assert reply.status_code == 200, reply.text
            assert reply.json()["status"] == "done"
    assert engines.called == [
        ("add", None),
        ("restart_all", None),
        ("remove", 1),
        ("drain", 1),
        ("resume", 1),
        ("restart", 1),
        ("reload", None),
    ]


async def test_an_engine_is_added_at_an_address(server: Served, engines: Engines):
    reply = await server.http.post("/admin/engines?address=tcp%3A%2F%2F10.0.0.5%3A8010", headers=bearer())
    assert reply.json()["status"] == "done"
    assert engines.called == [("add at tcp://10.0.0.5:8010", None)]


async def test_an_operation_that_takes_time_is_answered_with_202_and_others_with_409(server: Served, engines: Engines):
    engines.gate.clear()
    begun = await server.http.post("/admin/engines", headers=bearer())
    assert (begun.status_code, begun.json()["status"]) == (202, "running")
    path = f"/admin/operations/{begun.json()['id']}"
    assert (await server.http.get(path, headers=bearer())).json()["status"] == "running"
    for method, other in ROUTES:
        if method != "GET":
            reply = await server.http.request(method, other, headers=bearer())
            assert (reply.status_code, reply.json()["error"]["code"]) == (409, "operation_in_progress")
    assert (await server.http.get("/admin/engines", headers=bearer())).json()["operation"]["id"] == begun.json()["id"]
    engines.gate.set()
    async with asyncio.timeout(60):
        while (ended := (await server.http.get(path, headers=bearer())).json())["status"] == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (ended["status"], ended["engine"], ended["error"]) == ("done", 3, None)
    assert ended["ended_at"] >= ended["started_at"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConfigError, "operation_refused"),
        (NotEnoughMemory, "not_enough_memory"),
        (OperationInProgress, "operation_in_progress"),
    ],
)
async def test_an_operation_that_fails_at_once_is_an_error_and_recorded(server: Served, engines: Engines, kind, code):
    engines.error = kind("engine 1 is the last one")
    reply = await server.http.delete("/admin/engines/1", headers=bearer())
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, code)
    assert reply.json()["error"]["message"] == "Engine 1 is the last one."
    latest = (await server.http.get("/admin/engines", headers=bearer())).json()["operation"]
    assert (latest["status"], latest["error"]["message"]) == ("failed", "Engine 1 is the last one.")


async def test_an_unexpected_error_tells_nothing_about_its_cause(server: Served, engines: Engines, caplog):
    engines.error = RuntimeError("secret detail")
    reply = await server.http.post("/admin/engines", headers=bearer())
    assert reply.status_code == 409
    assert "secret" not in reply.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("path", "status"), [("/admin/engines/7", 404), ("/admin/engines/x", 400), ("/admin/engines/-1", 400)]
)
async def test_an_engine_that_is_not_there(server: Served, engines: Engines, path, status):
    for method, end in (("DELETE", ""), ("POST", "/drain"), ("POST", "/restart")):
        reply = await server.http.request(method, path + end, headers=bearer())
        assert (reply.status_code, reply.json()["error"]["param"]) == (status, "engine_id")
    assert not engines.called
    assert (await server.http.get("/admin/operations/operation-9999", headers=bearer())).status_code == 404


async def test_the_access_log_says_admin_and_no_limit_or_metric_of_keys_counts_it(server: Served, caplog):
    caplog.set_level(logging.INFO, logger="antiphon.access")
    logger = logging.getLogger("antiphon.access")
    logger.addHandler(caplog.handler)
    try:
        reply = await server.http.post("/admin/engines/restart", headers=bearer())
    finally:
        logger.removeHandler(caplog.handler)
    assert "x-ratelimit-limit-requests" not in reply.headers
    line = json.loads(next(record.getMessage() for record in caplog.records if record.name == "antiphon.access"))
    assert (line["key"], line["route"]) == ("admin", "/admin/engines/restart")
    assert ADMIN_KEY not in caplog.text
    metrics = (await server.http.get("/metrics", headers=bearer(KEY))).text
    assert 'key="admin"' not in metrics


async def test_a_key_cannot_be_both():
    with pytest.raises(ConfigError, match="is an API key too"):
        ServerConfig(api_keys=read_api_keys([KEY]), admin_keys=read_admin_keys([KEY]))


async def test_an_admin_key_has_no_limits(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"{ADMIN_KEY} weight=3\n")
    with pytest.raises(ConfigError, match="no limits"):
        read_admin_keys([], str(file))
    file.write_text("")
    with pytest.raises(ConfigError, match=r"--admin-key-file .* contains no key"):
        read_admin_keys([], str(file))

"""HAProxy in front of two servers with two engines each: full, upgraded one after the other, and killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import faulty_server
import httpx2
import pytest
from http_server import events, joined
from patience import PATIENCE, wait_until
from real_server import RealServer, real_server
from reverse_proxies import Proxy, free_address, proxied
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

from antiphon.proxies.addresses import Address

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
PLACES = 8  # unfinished requests at each server
BUFFER_BYTES = 64 << 10  # the part of a body that HAProxy reads
TEXTS = [f"Question {number}" for number in range(6)]


def question(text: str, max_tokens: int = 30, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True, **fields}


class Fronts:
    """Servers at fixed addresses that know each other; each can end and start again."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        described = {**metadata(template=CHATML_TEMPLATE), "qwen2.context_length": 4096}
        self._model = write_gguf(folder / "tiny.gguf", described)
        self._admin_keys = folder / "admin-keys"
        self._admin_keys.write_text("sk-a-key-for-operators\n")
        self._environment = {"STEP_SECONDS": "0.04", "LOSE_ENDS": str(folder / "no-such-file")}
        self._stack = stack
        self._running: dict[Address, ExitStack] = {}
        self.addresses = [free_address(), free_address()]
        self.servers: dict[Address, RealServer] = {}

    def start(self, address: Address) -> RealServer:
        """A ready server with that address."""
        (peer,) = (other for other in self.addresses if other != address)
        options = (
            *("--fake-engine", "--engines", "2", "--threads", "1", "--kv-cache-tokens", "100000"),
            *("--port", str(address.port), "--peer", f"http://{peer.text}", "--admin-key-file", str(self._admin_keys)),
            *(
                "--max-queued-requests",
                str(PLACES),
                "--fairness",
                "none",
                "--no-page",
                "--degrade",
                "off",
                "--hang-timeout",
                "300",
            ),
        )
        started = real_server(self._model, *options, environment=self._environment, program=[faulty_server.__file__])
        self._running[address] = running = self._stack.enter_context(ExitStack())
        self.servers[address] = running.enter_context(started)
        return self.servers[address]

    def stop(self, address: Address) -> None:
        """SIGTERM while it is busy; returns when it has ended, without an error."""
        process = self.servers[address].process
        process.terminate()
        assert process.wait(PATIENCE) == 0
        self._running[address].close()

    def kill(self, address: Address) -> None:
        self.servers[address].process.kill()
        self.servers[address].process.wait()

    def total(self, matches: Callable[[str], bool]) -> float:
        """The sum of the servers' samples that match."""
        scrapes = [server.metrics() for server in self.servers.values()]
        return sum(value for scrape in scrapes for name, value in scrape.items() if matches(name))

    def responses(self, status: int) -> float:
        """Responses of the servers with this status, so far."""
        return self.total(lambda name: name.startswith("antiphon_http_responses_total") and f'"{status}"' in name)

    def running(self, address: Address) -> float:
        return self.servers[address].metrics().get("antiphon_requests_running", 0.0)


@contextmanager
def fronts_and_proxy(folder: Path) -> Iterator[tuple[Fronts, Proxy]]:
    with ExitStack() as stack:
        fronts = Fronts(folder, stack)
        urls = [fronts.start(address).url for address in fronts.addresses]
        proxy = stack.enter_context(proxied("haproxy", urls, folder))
        wait_until(lambda: fronts.total(lambda name: name == "antiphon_peer_up") == 2, "no peers")
        yield fronts, proxy


@asynccontextmanager
async def open_stream(http: httpx2.AsyncClient, text: str, **fields: Any) -> AsyncIterator[AsyncIterator[bytes]]:
    """A stream whose first event has arrived."""
    async with http.stream("POST", CHAT, json=question(text, **fields)) as reply:
        assert reply.status_code == 200, await reply.aread()
        yield reply.aiter_raw()


async def answered(http: httpx2.AsyncClient, text: str, **fields: Any) -> str:
    """The text of a streamed answer. Raises HTTPError if it is cut."""
    async with open_stream(http, text, **fields) as chunks:
        return joined(events(b"".join([chunk async for chunk in chunks]).decode()))


def client(url: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None)
    return httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, limits=limits)


async def stored_responses(fronts: Fronts, proxy: Proxy) -> None:
    """Found through the proxy and at either server, with short and long bodies, without a miss at any server."""
    async with AsyncExitStack() as stack:
        urls = [proxy.url, *(server.url for server in fronts.servers.values())]
        clients = [await stack.enter_async_context(client(url)) for url in urls]
        body = {"input": "Hello", "max_output_tokens": 16, "temperature": 0}
        for maker in clients[1:]:
            made = (await maker.post(RESPONSES, json=body)).json()["id"]
            texts = set()
            for http, padding in zip(clients, ("x" * BUFFER_BYTES, "", "x" * BUFFER_BYTES), strict=True):
                for _ in range(4):  # HAProxy asks the servers in turn
                    assert (await http.get(f"{RESPONSES}/{made}")).json()["id"] == made
                more = await http.post(RESPONSES, json={**body, "unknown": padding, "previous_response_id": made})
                assert more.status_code == 200, more.text
                texts.add(more.json()["output"][0]["content"][0]["text"])
            assert len(texts) == 1
    assert fronts.responses(404) == 0


async def overload(fronts: Fronts, proxy: Proxy) -> None:
    """Both servers are full: each is tried once, and the refusal arrives whole. Then requests are accepted again."""
    async with client(proxy.url) as http, AsyncExitStack() as stack:
        for number in range(2 * PLACES):
            await stack.enter_async_context(open_stream(http, f"{number}", max_tokens=3000))
        before = fronts.responses(503)
        for number in range(1, 5):
            refused = await http.post(CHAT, json=question("one too many"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert int(refused.headers["retry-after-ms"]) >= 1
            assert fronts.responses(503) == before + 2 * number
    for server in fronts.servers.values():
        await asyncio.to_thread(server.wait_idle)
    async with client(proxy.url) as http:
        for text in TEXTS:
            await answered(http, text)


async def rolling_upgrade(fronts: Fronts, proxy: Proxy, alone: dict[str, str]) -> None:
    """Each server ends and starts again while clients ask; none of them sees anything."""
    done = asyncio.Event()
    counts: Counter[str] = Counter()

    async def ask_on(text: str) -> None:
        async with client(proxy.url) as http:
            while not done.is_set():
                assert await answered(http, text) == alone[text]
                counts[text] += 1

    async with asyncio.TaskGroup() as group:
        for text in TEXTS:
            group.create_task(ask_on(text))
        for number, address in enumerate(fronts.addresses, 1):
            await asyncio.to_thread(wait_until, lambda address=address: fronts.running(address) > 0, "it is idle")
            await asyncio.to_thread(fronts.stop, address)
            await asyncio.to_thread(fronts.start, address)
            await asyncio.to_thread(wait_until, lambda number=number: proxy.is_up(f"s{number}"), "it is not up")
            counts.clear()
        await asyncio.to_thread(wait_until, lambda: len(counts) == len(TEXTS), "not everybody is answered")
        done.set()


@contextmanager
def stopped(servers: Iterable[RealServer]) -> Iterator[None]:
    """The engines of these servers compute nothing meanwhile."""
    pids = [pid for server in servers for pid in server.engine_pids]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        with suppress(ProcessLookupError):  # it ended with its server
            os.kill(pid, signal.SIGCONT)


async def death(fronts: Fronts, proxy: Proxy, alone: dict[str, str]) -> None:
    """A server is killed: the streams of the other go on unchanged, and those that are cut succeed when asked again."""
    first, second = fronts.addresses
    begun: Counter[str] = Counter()

    async def ask_again(http: httpx2.AsyncClient, text: str) -> tuple[str, int]:
        """The answer, and how often it was cut."""
        for cuts in range(3):
            try:
                async with open_stream(http, text) as chunks:
                    seen = b""
                    async for chunk in chunks:
                        seen += chunk
                        begun[text] = 1
                if seen.endswith(b"data: [DONE]\n\n"):
                    return joined(events(seen.decode())), cuts
            except httpx2.RemoteProtocolError:
                pass
        raise AssertionError("cut too often")

    async with client(proxy.url) as http:
        tasks = [asyncio.create_task(ask_again(http, text)) for text in TEXTS]
        async with asyncio.timeout(PATIENCE):
            while len(begun) < len(TEXTS):  # noqa: ASYNC110  # what the tasks see has no event
                await asyncio.sleep(0.01)
        with stopped(fronts.servers.values()):
            kept, lost = fronts.running(first), fronts.running(second)
            assert kept + lost == len(TEXTS)
            assert min(kept, lost) > 0
            fronts.kill(second)
        answers = await asyncio.gather(*tasks)
        assert [text for text, _ in answers] == [alone[text] for text in TEXTS]
        assert sorted(cuts for _, cuts in answers) == [0] * int(kept) + [1] * int(lost)
        for text in TEXTS:  # nobody who comes later notices
            assert await answered(http, text) == alone[text]


@pytest.mark.slow
async def test_two_servers_behind_haproxy_are_full_upgraded_and_killed_and_what_is_stored_is_found(tmp_path: Path):
    with fronts_and_proxy(tmp_path) as (fronts, proxy):
        async with client(fronts.servers[fronts.addresses[0]].url) as direct:
            alone = {text: await answered(direct, text) for text in TEXTS}
        assert len(set(alone.values())) > 1
        await stored_responses(fronts, proxy)
        await overload(fronts, proxy)
        await rolling_upgrade(fronts, proxy, alone)
        await death(fronts, proxy, alone)

"""HTTPS with one's own certificate, and what is said of files that will not do."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from certificates import certificate
from http_server import serving, until
from patience import PATIENCE

from antiphon.config import ServerConfig
from antiphon.errors import ConfigError
from antiphon.http.certificate import check_tls


@pytest.mark.parametrize("in_one_file", [False, True])
async def test_https_with_ones_own_certificate(tmp_path, in_one_file):
    cert, key = certificate(tmp_path)
    files = {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}
    if in_one_file:
        cert.write_bytes(cert.read_bytes() + key.read_bytes())
        del files["ssl_keyfile"]
    async with serving(tmp_path, **files) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        trust = ssl.create_default_context(cafile=str(cert))
        async with httpx2.AsyncClient(base_url=url, verify=trust, timeout=PATIENCE, trust_env=False) as client:
            body = {"prompt": "x", "max_tokens": 3, "stream": True}
            reply = await client.post("/v1/completions", json=body)
            assert reply.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx2.HTTPError):
            await server.http.get("/health")  # plain HTTP


async def test_connections_that_never_finish_their_handshake_are_counted_and_go_first(tmp_path):
    cert, key = certificate(tmp_path)
    files = {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}
    trust = ssl.create_default_context(cafile=str(cert))
    async with serving(tmp_path, max_connections=5, **files) as server, AsyncExitStack() as silent:
        host, port = server.url.removeprefix("http://").split(":")
        readers = []
        for number in range(30):
            reader, writer = await asyncio.open_connection(host, int(port))
            silent.callback(writer.close)
            writer.write(b"\x16\x03\x01"[: number % 4])
            readers.append(reader)
            assert len(server.server._admission) <= 5
            if number % 10 == 9:
                url = f"https://localhost:{port}/health"
                async with httpx2.AsyncClient(verify=trust, timeout=PATIENCE, trust_env=False) as client:
                    assert (await client.get(url)).status_code == 200
        async with asyncio.timeout(PATIENCE):
            for reader in readers[:20]:
                assert await ended(reader)


async def test_a_handshake_has_a_time_out_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("antiphon.http.edge.connection_admission._HANDSHAKE_SECONDS", 0.2)
    cert, key = certificate(tmp_path)
    async with serving(tmp_path, ssl_certfile=str(cert), ssl_keyfile=str(key)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(PATIENCE):
            assert await ended(reader)
        writer.close()
        await until(lambda: not len(server.server._admission))


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


def refusal(**files: Path) -> str:
    with pytest.raises(ConfigError) as error:
        check_tls(ServerConfig(**{name: str(path) for name, path in files.items()}))
    return error.value.message


def test_files_that_will_not_do_are_named_before_anything_starts(tmp_path):
    (tmp_path / "other").mkdir()
    cert, key = certificate(tmp_path)
    _, others = certificate(tmp_path / "other")
    empty = tmp_path / "empty"
    empty.touch()
    check_tls(ServerConfig(ssl_certfile=str(cert), ssl_keyfile=str(key)))
    check_tls(ServerConfig())
    assert "No such file" in refusal(ssl_certfile=tmp_path / "missing", ssl_keyfile=key)
    assert "key values mismatch" in refusal(ssl_certfile=cert, ssl_keyfile=others)
    for wrong in (empty, key):
        assert refusal(ssl_certfile=wrong, ssl_keyfile=key).startswith(f"--ssl-certfile {wrong}")
    assert str(empty) in refusal(ssl_certfile=cert, ssl_keyfile=empty)
    assert "cannot be used" in refusal(ssl_certfile=cert)


def test_a_key_under_a_password_is_refused_and_no_password_is_asked_for(tmp_path):
    cert, key = certificate(tmp_path, password=b"secret")
    assert str(key) in refusal(ssl_certfile=cert, ssl_keyfile=key)

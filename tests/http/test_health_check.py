"""The health check of containers: its exit status says whether the server accepts requests."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
from certificates import certificate
from http_server import serving

from antiphon.health_check import server_address


async def check(**environment: str) -> tuple[int, str]:
    """Run it as an image does; its exit status and what it prints."""
    command: list[Any] = [sys.executable, "-m", "antiphon.health_check"]
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_it_succeeds_while_the_engine_accepts_work(tmp_path):
    async with serving(tmp_path) as server:
        port = str(urlsplit(server.url).port)
        assert await check(ANTIPHON_PORT=port) == (0, '{"status":"ready","model":"tiny"}\n')
        assert (await check(ANTIPHON_URL=f"{server.url}/v1"))[0] == 0
    status, answer = await check(ANTIPHON_PORT=port)
    assert (status, answer) == (1, f"no answer from http://127.0.0.1:{port}: [Errno 111] Connection refused\n")


async def test_it_fails_with_the_servers_reason_while_no_engine_can_work(tmp_path):
    async with serving(tmp_path, fake={"refuse_to_load": "weights are bent"}, wait=False) as server:
        with pytest.raises(Exception, match="weights are bent"):
            await server.engine.wait_ready()
        status, answer = await check(ANTIPHON_URL=server.url)
        assert status == 1
        assert json.loads(answer)["error"]["code"] == "not_ready"


async def test_a_server_that_speaks_https_is_asked_over_https(tmp_path):
    cert, key = certificate(tmp_path)
    async with serving(tmp_path, ssl_certfile=str(cert), ssl_keyfile=str(key)) as server:
        port = str(urlsplit(server.url).port)
        assert (await check(ANTIPHON_PORT=port, ANTIPHON_SSL_CERTFILE=str(cert)))[0] == 0
        assert (await check(ANTIPHON_PORT=port))[0] == 1


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://[::1", "http://127.0.0.1:port", ""])
async def test_an_address_that_is_none_is_a_failed_check_and_no_traceback(url: str):
    status, answer = await check(ANTIPHON_URL=url, ANTIPHON_PORT="1")
    assert status == 1
    assert answer.startswith(f"no answer from {url or 'http://127.0.0.1:1'}: ")
    assert "Traceback" not in answer


def test_the_address_is_that_of_the_settings_in_the_environment():
    assert server_address({}) == "http://127.0.0.1:8000"
    assert server_address({"ANTIPHON_PORT": "81", "ANTIPHON_SSL_CERTFILE": "/c.pem"}) == "https://127.0.0.1:81"
    assert server_address({"ANTIPHON_URL": "http://[::1]:9", "ANTIPHON_PORT": "81"}) == "http://[::1]:9"

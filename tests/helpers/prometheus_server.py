"""A real Prometheus on a free port, and its query API."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from patience import PATIENCE
from programs import prometheus

Json = dict[str, Any]
Points = list[tuple[float, float]]  # seconds since 1970, value


@dataclass(frozen=True)
class Series:
    """A series of a result."""

    labels: dict[str, str]
    points: Points

    @property
    def values(self) -> list[float]:
        """Its values that are numbers."""
        return [value for _, value in self.points if math.isfinite(value)]


@dataclass(frozen=True)
class PrometheusServer:
    """Prometheus, ready."""

    url: str
    http: httpx2.AsyncClient

    async def range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Evaluate an expression every `step` seconds from `start` to `end` (seconds since 1970)."""
        parameters = {"query": expression, "start": start, "end": end, "step": step}
        return [
            Series(each["metric"], [(time, float(value)) for time, value in each["values"]])
            for each in (await self._get("query_range", parameters))["result"]
        ]

    async def now(self, expression: str) -> list[Series]:
        """Evaluate an expression now."""
        found = await self._get("query", {"query": expression})
        return [Series(each["metric"], [(each["value"][0], float(each["value"][1]))]) for each in found["result"]]

    async def label_values(self, label: str, selector: str) -> list[str]:
        """The values of a label among the series of a selector."""
        return list(await self._get(f"label/{label}/values", {"match[]": selector}))

    async def _get(self, path: str, parameters: Json) -> Any:
        reply = await self.http.get(f"/api/v1/{path}", params=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]


@asynccontextmanager
async def running_prometheus(config: Path, data: Path, *options: str) -> AsyncIterator[PrometheusServer]:
    """Prometheus with this file of configuration and these options, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(prometheus(), f"--config.file={config}", f"--storage.tsdb.path={data}", "--web.listen-address=127.0.0.1:0"),
        *options,
        stderr=asyncio.subprocess.PIPE,
    )
    log: list[str] = []
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            url = await _address(process, log)
        reading = asyncio.create_task(_read(process, log))  # else the pipe would be full some day
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as http:
            async with asyncio.timeout(PATIENCE):
                while (await http.get("/-/ready")).status_code != 200:  # noqa: ASYNC110  # another process's state
                    await asyncio.sleep(0.05)
            yield PrometheusServer(url, http)
    finally:
        if process.returncode is None:
            process.terminate()
        if reading:
            await reading
        await process.wait()
    # The alerts' receiver may be missing; everything else is a mistake in the configuration.
    assert not [line for line in log if "level=error" in line and "component=notifier" not in line], log


async def _address(process: asyncio.subprocess.Process, log: list[str]) -> str:
    """Where it listens, which it says in its log."""
    assert process.stderr
    async for line in process.stderr:
        log.append(line.decode())
        if found := re.search(r'"Listening on" address=(\S+)', log[-1]):
            return f"http://{found[1]}"
    raise AssertionError("".join(log))


async def _read(process: asyncio.subprocess.Process, log: list[str]) -> None:
    assert process.stderr
    async for line in process.stderr:
        log.append(line.decode())

"""Draws docs/images/dashboard-*.svg: panels of the dashboard from what a real Prometheus scraped of a real server.

    .venv/bin/python docs/images/dashboard.py

The server runs for four minutes with the fake engine, whose steps take as long as those of a small model, and whose
answers begin with a thought. At first few clients use it, then more than it can serve; meanwhile an engine is killed.
Grafana itself is not needed: the panels' definitions are drawn here as Grafana would draw them.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
for folder in ("helpers", "page/helpers"):
    sys.path.insert(0, str(HERE.parents[1] / "tests" / folder))

from http_server import Served, serving  # noqa: E402
from mixed_load import MixedLoad  # noqa: E402
from panel_pictures import Shown, draw  # noqa: E402
from prometheus_server import PrometheusServer, running_prometheus  # noqa: E402
from promql import without_variables  # noqa: E402
from tiny_checkpoints import R1_TEMPLATE  # noqa: E402

from antiphon.api_keys import read_api_keys  # noqa: E402
from antiphon.degrade_rules import parse_rules  # noqa: E402
from antiphon.monitoring.bundle import files, write  # noqa: E402
from antiphon.monitoring.dashboard import ROWS  # noqa: E402
from antiphon.monitoring.panels import Panel  # noqa: E402
from antiphon.monitoring.prometheus import MonitoringSettings  # noqa: E402

PICTURES = {
    "dashboard-traffic.svg": ("Overview", "Alerts", "Load and admission", "Latency", "Thoughts and answers"),
    "dashboard-engines.svg": ("Overload", "Engines and steps", "KV cache and prefix cache", "Faults"),
    "dashboard-machine.svg": ("Memory", "Processor", "Connections and event loop", "API keys"),
}
THOUGHT = "First I look at what is asked. Then I go through it step by step, and check the result once more."
ANSWER = "</think>It is 391: twenty times seventeen is 340, three times seventeen 51.<｜end▁of▁sentence｜>"
DEGRADE = "wait>20%: thinking_budget=90; wait>50%: thinking_budget=60,max_tokens=120; wait>95%: shed=all"
STEP = 3.0  # seconds between two points
PHASES = ((50.0, 2), (100.0, 18), (90.0, 3))  # seconds, clients
KILLED_AFTER = 40.0  # seconds of the second phase
KEYS = {"alice": "alice-0123456789abcdef", "bob": "bob-0123456789abcdef", "prometheus": "scraper-0123456789abcdef"}
LIMITED = "limited-0123456789abcdef"


async def main() -> None:
    """Run, and draw what was scraped."""
    with tempfile.TemporaryDirectory() as folder:
        found = await _collect(Path(folder))
    for name, titles in PICTURES.items():
        rows = [row for row in ROWS if row.title in titles]
        (HERE / name).write_text(draw(rows, found), encoding="utf-8")
        print(HERE / name)


async def _collect(folder: Path) -> dict[str, list[Shown]]:
    """Title of a panel → the series of each of its queries."""
    listed = "".join(f"{name}: {key}\n" for name, key in KEYS.items())
    (folder / "keys").write_text(f"{listed}limited: {LIMITED} requests-per-minute=6\n")
    (folder / "keys").chmod(0o600)
    (folder / "key").write_text(KEYS["prometheus"])
    async with serving(
        folder,
        template=R1_TEMPLATE,
        script=THOUGHT + ANSWER,
        fake={"step_seconds": 0.02, "token_seconds": 0.0005, "load_seconds": 8.0},
        engines=2,
        max_num_sequences=4,
        api_keys=read_api_keys([], str(folder / "keys")),
        max_wait=10.0,
        degrade=parse_rules(DEGRADE),
        max_queued_requests=24,
    ) as server:
        settings = MonitoringSettings((server.url,), scrape_interval="2s", credentials_file="key")
        write(folder, files(folder, settings))
        async with running_prometheus(folder / "prometheus.yml", folder / "data") as prometheus:
            started = time.time()
            await _load(server)
            return await shown(prometheus, started)


async def _load(server: Served) -> None:
    load = MixedLoad(server.http, (KEYS["alice"], KEYS["bob"]), LIMITED, pause=1.0, tokens=200)
    for number, (seconds, users) in enumerate(PHASES):
        async with load.running(users):
            if number == 1:
                await asyncio.sleep(KILLED_AFTER)
                pid = server.engine.engines()[0].pid
                assert pid
                os.kill(pid, signal.SIGKILL)
                seconds -= KILLED_AFTER
            await asyncio.sleep(seconds)


async def shown(prometheus: PrometheusServer, started: float) -> dict[str, list[Shown]]:
    """Title of a panel → its series since `started`, in seconds since 1970."""
    return {panel.title: await _series(prometheus, panel, started) for row in ROWS for panel in row.panels}


async def _series(prometheus: PrometheusServer, panel: Panel, started: float) -> list[Shown]:
    found = []
    for query in panel.queries:
        expression = without_variables(query.expression, __rate_interval="15s")
        for series in await prometheus.range(expression, started, time.time(), STEP):
            name = query.legend
            for label, value in series.labels.items():
                name = name.replace(f"{{{{{label}}}}}", "server" if label == "instance" else value)
            name = re.sub(r"{{\w+}}", "", name)  # Grafana leaves out what a series has not
            points = [(at - started, value) for at, value in series.points]
            found.append(Shown(name.strip(), dict(series.labels), points))
    return found


if __name__ == "__main__":
    asyncio.run(main())

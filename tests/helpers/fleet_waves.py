"""Requests in waves for two engines, and what is counted of their steps; as a program, in a simulation.

A real client and a simulated one get the same waves. As each wave is complete before an engine takes any of it, steps
depend on no clock, and the two must be equal.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from random import Random
from typing import Any

NUM_ENGINES = 2
SIZES: dict[str, Any] = {
    "max_num_sequences": 6,
    "max_batch_tokens": 96,
    "target_step_seconds": 0.0,
    "kv_cache_tokens": 2048,
    "block_size": 16,
    "context_length": 1024,
}


def waves() -> list[list[dict[str, Any]]]:
    """What is asked: prompts that begin alike, from three clients, then each prompt again with more after it."""
    draw = Random(7)  # noqa: S311
    systems = [[draw.randrange(250) for _ in range(64)] for _ in range(3)]
    first = [
        {
            "id": f"first{number}",
            "prompt": systems[number % 3] + [draw.randrange(250) for _ in range(draw.randint(10, 120))],
            "max_tokens": draw.randint(3, 40),
            "client": f"client {number % 4 // 2}",
        }
        for number in range(24)
    ]
    second = [
        {**each, "id": f"second{number}", "prompt": each["prompt"] + [draw.randrange(250) for _ in range(40)]}
        for number, each in enumerate(first[:10])
    ]
    return [first, second]


class Steps:
    """The tokens of each step of each engine, and the requests in the order in which they begin and end."""

    def __init__(self) -> None:
        self.seen: dict[str, list[object]] = defaultdict(list)  # by the engine's id

    def watch(self, client: Any) -> None:
        """Note every report that the client's engines send from now on."""
        for engine in client._fleet.engines.values():
            engine.engine_said = self._noting(str(engine.id), engine.engine_said)

    def _noting(self, engine: str, said: Any) -> Any:
        def note(report: Any) -> None:
            if report.stats.step_tokens:
                ended = [event.request_id for event in report.events if event.finish_reason]
                self.seen[engine].append([report.stats.step_tokens, list(report.begun), ended])
            said(report)

        return note


def request_of(asked: dict[str, Any]) -> Any:
    from antiphon.request import GenerateRequest, SamplingParams

    sampling = SamplingParams(temperature=0.0, max_tokens=asked["max_tokens"], ignore_eos=True)
    return GenerateRequest(asked["id"], asked["prompt"], sampling, fairness_id=asked["client"])


async def ask_all(client: Any, wave: list[dict[str, Any]]) -> list[Any]:
    """Send a wave; returns its streams."""
    return [client.generate(request_of(asked)) for asked in wave]


async def read_all(streams: list[Any]) -> None:
    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    await asyncio.gather(*map(read, streams))


def counts_of(client: Any) -> dict[str, int]:
    """What all engines have computed together."""
    stats = client.stats
    return {name: getattr(stats, name) for name in ("num_computed_tokens", "num_prefix_hits", "num_preemptions")}


def main() -> None:
    """Print what a simulation of all waves counted."""
    import virtual_time

    clock = virtual_time.install()
    from fleet_simulation import EngineSizes, SimulatedClient
    from fleet_steps import StepModel

    from antiphon.config import ServerConfig

    async def simulate() -> dict[str, Any]:
        client = SimulatedClient(clock, StepModel.affine(0.05, 0.001), EngineSizes(**SIZES), ServerConfig())
        await client.start_engines(NUM_ENGINES)
        steps = Steps()
        steps.watch(client)
        for wave in waves():
            await read_all(await ask_all(client, wave))
        counts = counts_of(client)
        await client.stop()
        return {"steps": steps.seen, **counts}

    print(json.dumps(virtual_time.run(clock, simulate())))


if __name__ == "__main__":
    main()

"""The simulation against real runs: the same load, sent to a real server and to a simulated one.

The real server is the whole of `antiphon serve`, with HTTP, engine processes and their sockets. Its engines have the
fake runner, whose step takes a given time, or the demo model. What its step costs is measured first, by one stream and
by `STREAMS` for each engine, and given to the simulation. Then a load is drawn once: requests arrive at random
(Poisson), with prompts that share their beginnings. It is sent to both, and compared: tokens a second, and the mean and
95th percentile of the times to the first token and to the end of an answer.

The demo model's steps also depend on the context and on the machine's other work, so its comparison is the less exact.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import virtual_time
from fleet_figures import percentile
from fleet_steps import Curve, StepModel
from servers import Case, Server, complete

STREAMS = 16  # of each engine, to measure what a step costs
SHORT, LONG = 20, 400  # tokens of prompts that one step computes, for the same
KV_CACHE_TOKENS = 65_536
MODELS = ("fake", "demo")
_VOCABULARY = 40_000


@dataclass(frozen=True, slots=True)
class Steps:
    """The fake runner's step, in seconds."""

    fixed: float = 0.04
    per_token: float = 0.002


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a load."""

    at: float  # seconds after the load's beginning
    prompt: list[int]
    max_tokens: int


@dataclass(slots=True)
class Outcome:
    """What the client of one request saw, in seconds after it was sent."""

    first: float
    end: float
    tokens: int
    sent: float  # after the load's beginning


def draw_load(rate: float, seconds: float, seed: int) -> list[Asked]:
    """Requests at random times, one in three after a prompt that was asked before, the others after a system prompt."""
    draw = random.Random(seed)  # noqa: S311  # a load's
    systems = [[draw.randrange(1000, _VOCABULARY) for _ in range(128)] for _ in range(4)]
    load: list[Asked] = []
    at = draw.expovariate(rate)
    while at < seconds:
        before = draw.choice(load).prompt if load and draw.random() < 1 / 3 else draw.choice(systems)
        message = [draw.randrange(1000, _VOCABULARY) for _ in range(draw.randint(20, 120))]
        load.append(Asked(at, (before + message)[:1500], draw.randint(20, 120)))
        at += draw.expovariate(rate)
    return load


# --- the real server


def serve(port: int, model: str, engines: int, steps: Steps) -> None:
    """Be the real server."""
    from antiphon.commands.serving import run
    from antiphon.config import EngineConfig, FakeSettings, ServerConfig

    is_fake = model == "fake"
    fake = FakeSettings(vocab_size=_VOCABULARY, step_seconds=steps.fixed, token_seconds=steps.per_token)
    config = EngineConfig(
        model="demo", engines=engines, fake=is_fake, kv_cache_tokens=KV_CACHE_TOKENS, fake_settings=fake
    )
    run(config, ServerConfig(port=port, access_log="off"))


async def send(server: Server, load: Sequence[Asked]) -> list[Outcome]:
    """The load, sent to the real server."""
    began = time.monotonic()

    async def one(asked: Asked) -> Outcome:
        await asyncio.sleep(began + asked.at - time.monotonic())
        case = Case(1, len(asked.prompt), asked.max_tokens, known=True)
        stream = await complete(server.port, server.model, case, asked.prompt)
        first, end = stream.first - stream.sent, stream.last - stream.sent
        return Outcome(first, end, stream.tokens, stream.sent - began)

    return list(await asyncio.gather(*map(one, load)))


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured of a real server."""

    steps: StepModel  # a fixed part, each computed token, and each token that is drawn and sent
    front: float  # seconds that a first token needs besides: HTTP, the text of the prompt and its way to the engine


async def measure_costs(server: Server, engines: int) -> Costs:
    """Measured by the time between the tokens of one stream and of several, and to the first token of two prompts."""
    one, many = [await _between_tokens(server, count) for count in (1, engines * STREAMS)]
    short, long = [await _first_token(server, length) for length in (SHORT, LONG)]
    per_token = (long - short) / (LONG - SHORT)
    per_row = (many - one) / (STREAMS - 1) - per_token
    steps = StepModel(Curve.affine(one - per_token - per_row, per_token), Curve.affine(0.0, per_row))
    return Costs(steps, max(0.0, short - steps.seconds(SHORT, 1, 0)))


async def _between_tokens(server: Server, streams: int) -> float:
    """The median of the seconds between two tokens of each of so many streams at once."""
    draw = random.Random(streams)  # noqa: S311  # a load's
    prompts = [[draw.randrange(1000, _VOCABULARY) for _ in range(SHORT)] for _ in range(streams)]
    case = Case(1, SHORT, 60, known=True)
    each = await asyncio.gather(*(complete(server.port, server.model, case, prompt) for prompt in prompts))
    begin, end = max(stream.first for stream in each), min(stream.last for stream in each)
    arrivals = [[at for at in stream.arrivals if begin <= at <= end] for stream in each]
    return median(after - before for times in arrivals for before, after in pairwise(times))


async def _first_token(server: Server, length: int) -> float:
    """The median of the seconds to the first token of new prompts of this length, one after the other."""
    draw = random.Random(-length)  # noqa: S311  # a load's
    seconds = []
    for _ in range(5):
        prompt = [draw.randrange(1000, _VOCABULARY) for _ in range(length)]
        stream = await complete(server.port, server.model, Case(1, length, 1, known=True), prompt)
        seconds.append(stream.first - stream.sent)
    return median(seconds)


# --- the simulated one


async def replay(
    clock: virtual_time.Clock, model: StepModel, engines: int, loads: Sequence[Sequence[Asked]], block: int
) -> list[list[Outcome]]:
    """The loads, one after the other, sent to a simulated server."""
    from fleet_simulation import EngineSizes, SimulatedClient

    from antiphon.config import ServerConfig

    sizes = EngineSizes(kv_cache_tokens=KV_CACHE_TOKENS, block_size=block)
    client = SimulatedClient(clock, model, sizes, ServerConfig())
    await client.start_engines(engines)
    warm_up = [Asked(0.0, list(range(number, number + 64)), 8) for number in range(1000, 1000 + 100 * STREAMS, 100)]
    await _replay_one(client, "warm", warm_up)
    outcomes = [await _replay_one(client, f"load{number}", load) for number, load in enumerate(loads)]
    await client.stop()
    return outcomes


async def _replay_one(client: Any, name: str, load: Sequence[Asked]) -> list[Outcome]:
    from fleet_simulation import SimulatedClient

    from antiphon.request import GenerateRequest, SamplingParams, Terms

    assert isinstance(client, SimulatedClient)
    began = time.monotonic()

    async def one(number: int, asked: Asked) -> Outcome:
        await asyncio.sleep(asked.at)
        sampling = SamplingParams(temperature=0.0, max_tokens=asked.max_tokens, ignore_eos=True)
        request = GenerateRequest(f"{name}-{number}", asked.prompt, sampling, fairness_id="127.0.0.1")
        sent, arrivals = time.monotonic(), []
        async for event in client.generate(request, Terms(first_token=300.0)):
            if event.token_id is not None:
                arrivals.append(time.monotonic())
        return Outcome(arrivals[0] - sent, arrivals[-1] - sent, len(arrivals), sent - began)

    return list(await asyncio.gather(*(one(number, asked) for number, asked in enumerate(load))))


# --- both


def figures(outcomes: Sequence[Outcome], front: float = 0.0) -> dict[str, float]:
    """What is compared. `front`: seconds that each request needs besides."""
    end = max(each.sent + each.end for each in outcomes)
    found = {"tokens_per_second": sum(each.tokens for each in outcomes) / end}
    for name in ("first", "end"):
        values = [front + getattr(each, name) for each in outcomes]
        found[f"{name}_mean"] = mean(values)
        found[f"{name}_p95"] = percentile(values, 0.95) or 0.0
    return found


@dataclass(slots=True)
class Comparison:
    """One load on both."""

    rate: float
    requests: int
    real: dict[str, float]
    simulated: dict[str, float]
    off: dict[str, float] = field(default_factory=dict)  # the simulation by the real run, minus 1

    def __post_init__(self) -> None:
        self.off = {name: self.simulated[name] / value - 1 for name, value in self.real.items()}


def compare(model: str, engines: int, rates: Sequence[float], seconds: float, wanted: Steps) -> dict[str, Any]:
    """Real runs, then the simulation of the same loads. The clock of this process is simulated afterwards."""
    words = f"{sys.executable} {__file__} --serve {{port}} --model {model} --engines {engines}"
    server = Server("fleet-check", f"{words} --fixed {wanted.fixed} --per-token {wanted.per_token}")
    loads = [draw_load(rate, seconds, seed) for seed, rate in enumerate(rates, start=1)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            server.start(Path(folder))
            costs = asyncio.run(measure_costs(server, engines))
            real = [asyncio.run(send(server, load)) for load in loads]
        finally:
            server.stop()
    clock = virtual_time.install()
    block = 16 if model == "fake" else 32
    simulated = virtual_time.run(clock, replay(clock, costs.steps, engines, loads, block))
    rows = [
        asdict(Comparison(rate, len(load), figures(one), figures(other, costs.front)))
        for rate, load, one, other in zip(rates, loads, real, simulated, strict=True)
    ]
    steps = costs.steps
    fixed, per_token = steps.linear(0), steps.linear(1) - steps.linear(0)
    return {
        "model": model,
        "engines": engines,
        "seconds": seconds,
        "step_fixed": fixed,
        "step_per_token": per_token,
        "step_per_drawn_token": steps.head(1),
        "front": costs.front,
        "asked_for": asdict(wanted) if model == "fake" else None,
        "loads": rows,
        "largest_difference": max(abs(value) for row in rows for value in row["off"].values()),
    }


def main() -> None:
    """Be the real server that `compare` starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=int, required=True, metavar="PORT")
    parser.add_argument("--model", choices=MODELS, default="fake")
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--fixed", type=float, default=0.0, help="seconds of a step")
    parser.add_argument("--per-token", type=float, default=0.0, help="seconds more for each token")
    arguments = parser.parse_args()
    serve(arguments.serve, arguments.model, arguments.engines, Steps(arguments.fixed, arguments.per_token))


if __name__ == "__main__":
    main()

"""Servers under test, and the one client that asks them all: started, asked, weighed, stopped.

The client is that of `antiphon bench`. It has a connection for each answer, and decodes an answer when it is complete,
so that it costs little meanwhile. It sends every server the same bytes (except for the model's name, which it asks for
first) and counts the same way. It holds every server to what was asked: an answer has exactly its number of tokens, a
prompt too, and a new one must not be found in a cache. Whatever else a server says ends the benchmark with its words.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from antiphon.bench.client import Reply, ask
from antiphon.bench.events import EventReader

START_TIMEOUT = 900.0  # seconds
VOCABULARY = 40_000  # token ids are drawn below this: ordinary text in any of the models
CACHED_BY_CHANCE = 32  # tokens of a prompt: a block, or a beginning that a server writes before each
TICKS = os.sysconf("SC_CLK_TCK")
_OK, _NOT_READY = 200, 503


WARM_UP = "2x64+8"


@dataclass(frozen=True)
class Case:
    """`users` requests at once, each with a prompt and an answer of so many tokens; as often as `rounds` says.

    `known`: a user's prompt is the same in every round, and was computed before the first, so that decoding is what is
    measured; each user's is still a different one.
    """

    users: int
    prompt: int
    answer: int
    known: bool = False
    rounds: int = 3

    @classmethod
    def parse(cls, text: str) -> Case:
        """`USERSxPROMPT+ANSWER`, a k if the prompts are known, and how many rounds: 32x64+128, 32x1000+64k*2."""
        sizes, _, rounds = text.partition("*")
        users, _, lengths = sizes.removesuffix("k").partition("x")
        prompt, _, answer = lengths.partition("+")
        return cls(int(users), int(prompt), int(answer), sizes.endswith("k"), int(rounds or cls.rounds))

    def __str__(self) -> str:
        return f"{self.users}x{self.prompt}+{self.answer}{'k' * self.known}"

    @property
    def is_prefill(self) -> bool:
        return self.answer == 1

    def prompts(self) -> list[list[int]]:
        draw = random.Random(str(self) if self.known else None)  # noqa: S311  # noise, no secret
        return [[draw.randrange(1000, VOCABULARY) for _ in range(self.prompt)] for _ in range(self.users)]


@dataclass
class Stream:
    """When one answer's parts came, in seconds of the monotonic clock, and how many tokens it had."""

    sent: float
    arrivals: list[float]
    tokens: int
    cached: int  # tokens of the prompt that the server says it knew

    @property
    def first(self) -> float:
        return self.arrivals[0]

    @property
    def last(self) -> float:
        return self.arrivals[-1]

    def tokens_between(self, start: float, end: float) -> float:
        """Parts are of about equal numbers of tokens: some tokens of noise make no text, and no part of their own."""
        return self.tokens * sum(start < arrival <= end for arrival in self.arrivals) / len(self.arrivals)


class NotReady(Exception):
    """The server says that it is still loading."""


async def _ask(port: int, path: str, body: dict[str, object] | None = None) -> Reply:
    """A request on a connection of its own, and its whole answer."""
    try:
        reply = await ask(f"http://127.0.0.1:{port}", path, body)
    except EOFError as error:
        raise RuntimeError(f"{path}: {error}") from None
    if reply.status == _NOT_READY:
        raise NotReady
    if reply.status != _OK:
        raise RuntimeError(f"{path}: status {reply.status}: {reply.body.decode(errors='replace')[-1000:]}")
    return reply


async def model_name(port: int) -> str:
    """The first model that the server lists."""
    return str((await _ask(port, "/v1/models")).json()["data"][0]["id"])


async def complete(port: int, model: str, case: Case, prompt: list[int]) -> Stream:
    """One streamed completion."""
    wanted = {"model": model, "prompt": prompt, "max_tokens": case.answer, "temperature": 0, "ignore_eos": True}
    reply = await _ask(port, "/v1/completions", {**wanted, "stream": True, "stream_options": {"include_usage": True}})
    events = EventReader()
    arrivals: list[float] = []
    last = ending = b""
    for at, part in reply.parts:
        for last in events.feed(part):
            if b'"usage":{' in last:
                ending = last
            if b'"choices":[{' in last:
                arrivals.append(at)
    if not (ending and arrivals and last == b"[DONE]"):
        raise RuntimeError(f"a stream ended without its usage, a token or [DONE]: {last!r}")
    return _checked(Stream(reply.sent, arrivals, 0, 0), json.loads(ending)["usage"], case)


def _checked(stream: Stream, usage: dict[str, object], case: Case) -> Stream:
    """The stream with its counts, which must be those that were asked for."""
    assert usage["completion_tokens"] == case.answer, f"asked for {case.answer} tokens, got {usage}"
    assert usage["prompt_tokens"] in (case.prompt, case.prompt + 1), f"sent {case.prompt} tokens: {usage}"  # + BOS
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    stream.tokens, stream.cached = case.answer, cached or 0
    assert case.known or stream.cached <= CACHED_BY_CHANCE, f"a new prompt was found in a cache: {usage}"
    return stream


@dataclass
class Server:
    """A server under test: its processes, and its port."""

    name: str
    command: str
    port: int = 0
    model: str = ""
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    seconds_to_start: float = 0.0

    def start(self, log_folder: Path) -> None:
        """Start it, wait until it has answered a request for one token, and warm it up."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        log_folder.mkdir(parents=True, exist_ok=True)
        self.log = log_folder / f"{self.name}.log"
        words = shlex.split(self.command.format(port=self.port))
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        started = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                words, stdout=output, stderr=output, start_new_session=True, env=environment
            )
        while not self._answers():
            self.check()
            if time.monotonic() > started + START_TIMEOUT:
                sys.exit(f"{self.name} was not ready within {START_TIMEOUT:.0f} s; see {self.log}")
            time.sleep(0.5)
        self.seconds_to_start = time.monotonic() - started
        asyncio.run(self.run(Case.parse(WARM_UP)))

    def check(self) -> None:
        """End the benchmark, with the reason, if the server has ended."""
        if self.process is not None and (status := self.process.poll()) is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            sys.exit(f"{self.name} {how}; see {self.log}")

    def _answers(self) -> bool:
        try:
            self.model = asyncio.run(model_name(self.port))
            asyncio.run(self.run(Case(1, 8, 1)))
        except (OSError, NotReady):
            return False
        return True

    def pause(self) -> None:
        """Its processes stand still until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)
        time.sleep(0.5)  # for what it does about the lost time

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)

    def stop(self) -> None:
        """Stop it; one that has ended, or was stopped before, is left alone."""
        if self.process is not None and self.process.poll() is None:
            self._signal(signal.SIGCONT)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)

    async def run(self, case: Case, prompts: list[list[int]] | None = None) -> list[Stream]:
        """All users at once; without `prompts`, with those of the case. Ends the benchmark if the server has ended."""
        given = case.prompts() if prompts is None else prompts
        try:
            return await asyncio.gather(*(complete(self.port, self.model, case, prompt) for prompt in given))
        except (OSError, EOFError, RuntimeError, IndexError):
            await asyncio.sleep(0.5)  # a process that breaks its connections may take a moment to end
            self.check()
            raise

    def processes(self) -> list[int]:
        """Ids of the process that was started and all below it."""
        assert self.process is not None
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            for fields in read_lines(folder / "stat"):
                children.setdefault(int(fields.rpartition(")")[2].split()[1]), []).append(int(folder.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def memory_bytes(self) -> int:
        """PSS of all its processes: pages that several share are counted once among them."""
        rollups = (line for pid in self.processes() for line in read_lines(Path(f"/proc/{pid}/smaps_rollup")))
        return sum(int(line.split()[1]) << 10 for line in rollups if line.startswith("Pss:"))

    def cpu_seconds(self) -> dict[int, float]:
        """What each of its processes has used, in and out of the kernel."""
        used = {}
        for pid in self.processes():
            for line in read_lines(Path(f"/proc/{pid}/stat")):
                fields = line.rpartition(")")[2].split()
                used[pid] = (int(fields[11]) + int(fields[12])) / TICKS
        return used


def busy_seconds() -> float:
    """Processor time that this machine has spent on anything."""
    user, nice, system, _, _, irq, softirq = (int(field) for field in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def read_lines(path: Path) -> Iterator[str]:
    """A file's lines; none if its process has just ended."""
    try:
        yield from path.read_text().splitlines()
    except OSError:
        return

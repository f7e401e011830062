"""A load test from its first request to its last: stages, one after another, into a journal.

Owns the folder of a run: `journal.jsonl` has everything that was measured, `answers.jsonl` the answers, if they are to
be compared. A run that was stopped continues with the stage that was not complete. The server's counters are read
before and after each stage, when the server is idle, so that both sides' accounts can be compared; in between it is
sampled once a second.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import msgspec

from antiphon import __version__
from antiphon.bench.about import machine, without_secrets
from antiphon.bench.accounts import reconcile
from antiphon.bench.journal import JOURNAL, Journal, current, read
from antiphon.bench.lag import LagMeter
from antiphon.bench.load import Habits, Load
from antiphon.bench.observer import Observer, growth, is_busy
from antiphon.bench.prompts import Prompts
from antiphon.bench.records import CheckRecord, Record, RequestRecord, RunRecord, StageRecord
from antiphon.bench.requests import Asker, Exchange, Request
from antiphon.bench.retries import Policy
from antiphon.bench.same import AnswerFile, check_same
from antiphon.bench.scrape import Scrape
from antiphon.bench.server import PATHS, Server
from antiphon.bench.stages import Stage
from antiphon.errors import ConfigError

T = TypeVar("T")

ANSWERS = "answers.jsonl"
SCHEMA = 1
_SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Settings:
    """What a run needs besides the server, its prompts and its stages."""

    timeout: float = 600.0  # seconds for a whole answer
    retries: Policy = "none"
    habits: Habits = field(default_factory=Habits)
    pid: int = 0  # of a local server; 0: only its /metrics
    check_same: bool = False
    same_requests: int = 0  # that are asked alone, at most; 0: all
    shared: bool = False  # others use the server
    max_lag: float = 0.02  # seconds at the 99th percentile of the client's own event loop
    warmups: int = 0  # requests before the first stage, which are not recorded
    seed: int = 0


class Watcher(Protocol):
    """Shows the progress of a run."""

    def begin(self, stage: Stage, position: str) -> None:
        """A stage begins."""

    def begin_check(self, what: str, total: int) -> None:
        """A check begins that takes `total` steps."""

    def advance(self, done: int) -> None:
        """So many steps of the check are done."""

    def take(self, record: RequestRecord) -> None:
        """An attempt has ended."""

    def tick(self, users: int) -> None:
        """About a second has passed."""


@dataclass(frozen=True)
class Outcome:
    """The results of one stage."""

    stage: StageRecord
    requests: list[RequestRecord]
    checks: list[CheckRecord]


class LoadTest:
    """One run against one server. Use it as an asynchronous context manager, and call `run_stage` for each stage."""

    def __init__(
        self,
        server: Server,
        prompts: Prompts,
        settings: Settings,
        folder: Path,
        options: dict[str, str],
        watcher: Watcher,
        *,
        resume: bool = False,
    ) -> None:
        """`options`: what the run was asked for, in words; a run is only resumed with the same."""
        self.server = server
        self.stop = asyncio.Event()  # set: the stage under way ends, and `run_stage` returns
        self._prompts = prompts
        self._settings = settings
        self._folder = folder
        self._options = options
        self._watcher = watcher
        self._resume = resume
        self._origin = time.monotonic()
        self._lag = LagMeter()
        self.done: dict[int, Outcome] = {}  # stages of an earlier run that are complete

    async def __aenter__(self) -> LoadTest:
        path = self._folder / JOURNAL
        earlier = current(read(path)) if path.exists() else []
        if earlier and not self._resume:
            raise ConfigError(f"{self._folder} has the results of an earlier run; use --resume or another --output")
        self._take_up(earlier)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.journal = Journal(path)
            self._answers = AnswerFile(self._folder / ANSWERS) if self._settings.check_same else None
        except OSError as error:
            raise ConfigError(f"--output {self._folder} cannot be written: {error.strerror}") from None
        self._asker = Asker(
            self.server.client,
            PATHS[self.server.sampling.endpoint],
            timeout=self._settings.timeout,
            policy=self._settings.retries,
            origin=self._origin,
            seed=self._settings.seed,
        )
        self._observer = Observer(self.server, self._asker.now, pid=self._settings.pid, shared=self._settings.shared)
        if not earlier:
            self.journal.write(self._about())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)
        if self._answers is not None:
            self._answers.close()
        self.server.close()

    def _take_up(self, earlier: list[Record]) -> None:
        """Continue an earlier run: its clock, and its complete stages."""
        runs = [each for each in earlier if isinstance(each, RunRecord)]
        if not runs:
            return
        before = {**runs[0].options, "url": runs[0].url, "model": runs[0].model}
        now = {**self._options, "url": self.server.target.url, "model": self.server.model}
        for name in sorted(before.keys() | now.keys()):
            if (was := before.get(name, "not given")) != (wanted := now.get(name, "not given")):
                raise ConfigError(
                    f"{self._folder} has a run with {name} {was}, not {wanted}; a run is resumed with the same options"
                )
        self._origin = time.monotonic() - (time.time() - runs[0].started_at)
        for stage in (each for each in earlier if isinstance(each, StageRecord) and not each.interrupted):
            requests = [each for each in earlier if isinstance(each, RequestRecord) and each.stage == stage.stage]
            checks = [each for each in earlier if isinstance(each, CheckRecord) and each.stage == stage.stage]
            self.done[stage.stage] = Outcome(stage, requests, checks)

    def _about(self) -> RunRecord:
        target = self.server.target
        return RunRecord(
            SCHEMA,
            target.name or self.server.model,
            target.url,
            self.server.model,
            without_secrets(sys.argv),
            time.time() - (time.monotonic() - self._origin),
            __version__,
            machine(),
            self._options,
        )

    # ---- Stages ----

    async def warm_up(self) -> None:
        """Send some requests that are not recorded."""
        jobs = (self._ask_alone(self._body(-1, number)) for number in range(self._settings.warmups))
        await self._unless_stopped(asyncio.gather(*jobs))

    async def run_stage(self, stage: Stage, position: str = "") -> Outcome:
        """Run one stage and write it down; one that an earlier run completed is only returned."""
        if stage.number in self.done:
            return self.done[stage.number]
        before = await self._observer.idle_scrape()
        requests: list[RequestRecord] = []

        def take(exchange: Exchange) -> None:
            requests.append(exchange.record)
            self.journal.write(exchange.record)
            self._watcher.take(exchange.record)
            if self._answers is not None and exchange.record.end == "answered":
                self._answers.keep(exchange)

        self._watcher.begin(stage, position)
        record = await self._measured(stage, take)
        after = await self._observer.idle_scrape() if before else None
        if before and after:
            record = msgspec.structs.replace(record, server_counters=growth(before, after))
        checks = [self._lag_check(record)]
        if before:
            checks.append(self._accounts(record, requests, before, after))
        self.journal.write(record)
        for check in checks:
            self.journal.write(check)
        self.journal.sync()
        return Outcome(record, requests, checks)

    async def _measured(self, stage: Stage, take: Callable[[Exchange], None]) -> StageRecord:
        gc.collect()
        gc.freeze()  # garbage collection over all objects would make the client lag
        self._lag.start()
        cpu = time.process_time()
        load = Load(stage, self._asker, lambda number: self._body(stage.number, number), self._settings.habits, take)
        watching = asyncio.create_task(self._watch(load))
        try:
            complete = await load.run(self.stop)
        finally:
            watching.cancel()
            (fault,) = await asyncio.gather(watching, return_exceptions=True)
            await self._lag.stop()
            gc.unfreeze()
        if isinstance(fault, Exception):  # the journal cannot be written
            raise fault
        ramp = (stage.first_users, stage.users, stage.ramp_seconds, stage.hold_seconds)
        return StageRecord(
            stage.number,
            stage.label,
            stage.shape,
            load.started,
            self._asker.now(),
            sending_ended=load.sending_ended,
            interrupted=not complete,
            users=stage.users or None,
            rate=stage.rate or None,
            round=stage.round,
            warm_up=stage.warm_up,
            ramp=ramp if stage.shape == "ramp" else None,
            client_cpu_seconds=time.process_time() - cpu,
            lag_p99=self._lag.p99,
            lag_max=self._lag.max,
            lag_histogram=self._lag.histogram,
            requests=load.num_requests,
        )

    def _body(self, stage: int, number: int) -> bytes:
        return self.server.body(self._prompts, stage, number)

    def _lag_check(self, stage: StageRecord) -> CheckRecord:
        most = self._settings.max_lag
        if stage.lag_p99 <= most:
            return CheckRecord(stage.stage, "lag", True, 1)
        late = f"99 % of timers were up to {stage.lag_p99 * 1000:.1f} ms late; more than {most * 1000:g} ms is too much"
        return CheckRecord(stage.stage, "lag", False, 1, [late])

    def _accounts(
        self, stage: StageRecord, requests: list[RequestRecord], before: Scrape, after: Scrape | None
    ) -> CheckRecord:
        if after is None:
            return CheckRecord(stage.stage, "accounts", False, 0, ["the server's metrics could no longer be read"])
        accounts = reconcile(stage.stage, requests, stage.server_counters, shared=self._settings.shared)
        if not accounts.passed and (is_busy(before) or is_busy(after)):
            note = "the server was busy before or after the stage; if others use it, add --shared"
            return msgspec.structs.replace(accounts, note=note)
        return accounts

    async def _watch(self, load: Load) -> None:
        while True:
            began = self._asker.now()
            sample = await self._observer.sample(load.users)
            if sample is not None:
                self.journal.write(sample)
            self.journal.flush()
            self._watcher.tick(load.users)
            await asyncio.sleep(max(0.0, began + _SAMPLE_SECONDS - self._asker.now()))

    # ---- Answers alone ----

    async def check_same(self) -> CheckRecord | None:
        """Ask again, alone, what was asked under load, and write down whether the answers are the same."""
        if self._answers is None or self.stop.is_set():
            return None
        said = self._answers.read()
        self._watcher.begin_check("asking again, alone", self._settings.same_requests or len(said))
        record = await self._unless_stopped(
            asyncio.ensure_future(
                check_same(
                    said,
                    self._ask_alone,
                    limit=self._settings.same_requests,
                    progress=lambda done, _: self._watcher.advance(done),
                )
            )
        )
        if record is None:
            return None
        self.journal.write(record)
        self.journal.sync()
        return record

    async def _unless_stopped(self, job: asyncio.Future[T]) -> T | None:
        """The job's result; None if the run was stopped first, which cancels it."""
        stopping = asyncio.create_task(self.stop.wait())
        try:
            both: tuple[asyncio.Future[Any], ...] = (job, stopping)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return job.result() if job.done() else None
        finally:
            stopping.cancel()
            job.cancel()

    async def _ask_alone(self, body: bytes) -> Exchange:
        return await self._asker.ask_once(Request(-1, 0, body))

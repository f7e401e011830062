"""Load tests of a real server with the fake runner, and of servers that lie."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from canned_servers import STREAM, Asked, canned, chunk, ending, part, whole
from http_server import Served, serving
from running_server import MODEL
from tiny_checkpoints import R1_TEMPLATE

from antiphon.bench.journal import current, read
from antiphon.bench.load import Habits
from antiphon.bench.prompts import FilePrompts, built_in
from antiphon.bench.records import CheckRecord, RequestRecord, RunRecord, SampleRecord, StageRecord
from antiphon.bench.run import LoadTest, Outcome, Settings
from antiphon.bench.server import Sampling, Server, Target
from antiphon.bench.stages import Stage, stages
from antiphon.errors import AntiphonError, ConfigError

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENT = Settings(max_lag=1e9)  # the server under test runs on the same event loop


class Silent:
    """Watches a run, and says nothing."""

    def begin(self, stage: Stage, position: str) -> None: ...
    def begin_check(self, what: str, total: int) -> None: ...
    def advance(self, done: int) -> None: ...
    def take(self, record: RequestRecord) -> None: ...
    def tick(self, users: int) -> None: ...


class Neighbour(Silent):
    """Asks the same server once, when the first request of the load test has ended."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._task: asyncio.Task[Any] | None = None

    def take(self, record: RequestRecord) -> None:
        self._task = self._task or asyncio.create_task(self._served.chat("Hi", max_tokens=1))


@asynccontextmanager
async def load_test(
    url: str, folder: Path, settings: Settings = PATIENT, sampling: Sampling | None = None, **options: Any
) -> Any:
    server = Server(Target(url), sampling or Sampling(max_tokens=8), settings.timeout)
    await server.prepare()
    prompts = options.pop("prompts", None) or built_in("chat", 0)
    named, watcher = options.pop("named", {}), options.pop("watcher", Silent())
    async with LoadTest(server, prompts, settings, folder, named, watcher, **options) as test:
        yield test


async def run(
    url: str, folder: Path, planned: list[Stage], settings: Settings = PATIENT, **options: Any
) -> list[Outcome]:
    async with load_test(url, folder, settings, **options) as test:
        return [await test.run_stage(stage) for stage in planned]


def of(folder: Path, kind: Any) -> list[Any]:
    return [each for each in current(read(folder / "journal.jsonl")) if isinstance(each, kind)]


async def test_what_client_and_server_count_is_the_same_and_everything_is_in_the_journal(
    served: Served, tmp_path: Path
):
    settings = replace(PATIENT, habits=Habits(seed=3), check_same=True)
    async with load_test(served.url, tmp_path, settings) as test:
        planned = [*stages(users="1,3", requests=6), replace(stages(rate="200", requests=9)[0], number=2)]
        outcomes = [await test.run_stage(stage) for stage in planned]
        same = await test.check_same()
    assert [len(outcome.requests) for outcome in outcomes] == [6, 6, 9]
    assert all(check.passed for outcome in outcomes for check in outcome.checks)
    assert {check.check: check.compared for check in outcomes[0].checks} == {"lag": 1, "accounts": 6}
    assert (same.passed, same.compared) == (True, 21)
    (about,) = of(tmp_path, RunRecord)
    assert (about.model, about.url) == (MODEL, served.url)
    requests = of(tmp_path, RequestRecord)
    assert requests == [request for outcome in outcomes for request in outcome.requests]
    assert {(each.end, each.answer_tokens, each.finish_reason) for each in requests} == {("answered", 8, "length")}
    assert all(each.due is not None and each.due <= each.sent for each in requests[12:])
    assert max(each.users for each in requests[6:12]) == 3
    assert [stage.requests for stage in of(tmp_path, StageRecord)] == [6, 6, 9]
    assert of(tmp_path, StageRecord)[2].server_counters["generated_tokens"] == 72
    assert [check.check for check in of(tmp_path, CheckRecord)] == ["lag", "accounts"] * 3 + ["same"]
    sample = of(tmp_path, SampleRecord)[0]
    assert sample.memory_bytes > 1 << 20
    assert sample.kv_usage is not None
    assert len({each.prompt for each in requests}) == 21


async def test_thoughts_of_a_real_server_are_told_from_its_answers(tmp_path: Path):
    script = "Let me see.</think>\n\nParis.<｜end▁of▁sentence｜>"
    async with serving(tmp_path, template=R1_TEMPLATE, script=script) as served:
        (outcome,) = await run(served.url, tmp_path / "out", stages(users="2", requests=4), sampling=Sampling())
    assert {each.end for each in outcome.requests} == {"answered"}
    assert all(each.thought_tokens > 0 and each.answer_tokens > 0 for each in outcome.requests)
    assert all(each.first_token <= each.first_answer for each in outcome.requests)
    assert all(check.passed for check in outcome.checks)


async def test_refusals_have_a_time_that_retries_keep_and_accounts_still_close(tmp_path: Path):
    async with serving(tmp_path, max_queued_requests=2, max_num_sequences=1, fake={"step_seconds": 0.01}) as served:
        settings = replace(PATIENT, retries="openai")
        (outcome,) = await run(served.url, tmp_path / "out", stages(users="5", requests=8), settings)
    refused = [each for each in outcome.requests if each.end == "refused"]
    assert refused
    assert {(each.status, each.code) for each in refused} == {(503, "server_overloaded")}
    retried = [each for each in outcome.requests if each.attempt]
    told = {(each.number, each.attempt): each.retry_after for each in refused}
    for each in retried:
        before = told[each.number, each.attempt - 1]
        assert before is None or each.waited >= before
    assert outcome.stage.server_counters["refused"] == len(refused)
    assert all(check.passed for check in outcome.checks)


class UntilLast(Silent):
    """Stops the run when the user of this number has got an answer."""

    def __init__(self, user: int) -> None:
        self._user = user
        self.test: LoadTest | None = None

    def take(self, record: RequestRecord) -> None:
        if record.user == self._user and self.test:
            self.test.stop.set()


async def test_a_ramp_adds_its_users_one_after_another(served: Served, tmp_path: Path):
    (planned,) = stages(ramp="1..4", ramp_seconds=0.6, hold_seconds=600)
    watcher = UntilLast(3)
    async with load_test(served.url, tmp_path, sampling=Sampling(max_tokens=2), watcher=watcher) as test:
        watcher.test = test
        outcome = await test.run_stage(planned)
    first = [min(each.sent for each in outcome.requests if each.user == user) for user in range(4)]
    assert [at - outcome.stage.started >= 0.2 * user for user, at in enumerate(first)] == [True] * 4
    assert outcome.stage.ramp == (1, 4, 0.6, 600)
    assert max(each.users for each in outcome.requests) == 4


async def test_a_stage_that_was_stopped_is_repeated_when_the_run_is_resumed(served: Served, tmp_path: Path):
    planned = stages(users="1,2,3", requests=4)
    async with load_test(served.url, tmp_path, named={"users": "1,2,3"}) as test:
        await test.run_stage(planned[0])
        asyncio.get_running_loop().call_soon(test.stop.set)
        stopped = await test.run_stage(planned[1])
    assert stopped.stage.interrupted
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"type":"request","st')  # as a machine that lost its power leaves it
    with pytest.raises(ConfigError, match="--resume"):
        await run(served.url, tmp_path, planned, named={"users": "1,2,3"})
    with pytest.raises(ConfigError, match="a run with users 1,2,3, not 1"):
        await run(served.url, tmp_path, planned, named={"users": "1"}, resume=True)
    before = (tmp_path / "journal.jsonl").read_bytes()
    outcomes = await run(served.url, tmp_path, planned, named={"users": "1,2,3"}, resume=True)
    after = (tmp_path / "journal.jsonl").read_bytes()
    assert after.startswith(before[: before.rindex(b"\n") + 1])
    assert [len(outcome.requests) for outcome in outcomes] == [4, 4, 4]
    assert len(of(tmp_path, RunRecord)) == 1
    assert sorted((each.stage, each.number) for each in of(tmp_path, RequestRecord)) == [
        (stage, number) for stage in range(3) for number in range(4)
    ]
    assert [each.started for each in of(tmp_path, StageRecord)] == sorted(
        each.started for each in of(tmp_path, StageRecord)
    )


async def test_requests_that_do_not_end_are_cancelled_after_the_stage(tmp_path: Path):
    async with serving(tmp_path, fake={"step_seconds": 0.05}) as served:
        settings = replace(PATIENT, habits=Habits(drain=0.1))
        planned = stages(users="2", seconds=0.3)
        (outcome,) = await run(served.url, tmp_path / "out", planned, settings, sampling=Sampling(max_tokens=4000))
    assert [each.end for each in outcome.requests] == ["cancelled", "cancelled"]
    assert all(check.passed for check in outcome.checks), outcome.checks
    begun = sum(each.status == 200 for each in outcome.requests)
    assert outcome.stage.server_counters["aborted"] >= begun
    assert outcome.stage.server_counters["finished"] == 0


async def test_a_limit_of_requests_at_once_does_not_hide_the_wait(tmp_path: Path):
    async with serving(tmp_path, fake={"step_seconds": 0.02}) as served:
        settings = replace(PATIENT, habits=Habits(arrivals="constant", max_concurrency=1))
        planned = stages(rate="1000", requests=4)
        (outcome,) = await run(served.url, tmp_path / "out", planned, settings)
    assert {each.users for each in outcome.requests} == {1}
    late = [each.sent - each.due for each in outcome.requests]
    assert late == sorted(late)
    assert late[3] >= 3 * 8 * 0.02 - 0.003  # it waited for three answers of eight steps


async def test_a_run_that_is_stopped_asks_no_more_and_compares_nothing(served: Served, tmp_path: Path):
    settings = replace(PATIENT, check_same=True, warmups=1)
    async with load_test(served.url, tmp_path, settings, sampling=Sampling(max_tokens=2)) as test:
        await test.warm_up()
        await test.run_stage(stages(requests=3)[0])
        asyncio.get_running_loop().call_soon(test.stop.set)
        assert await test.check_same() is None
    assert [check.check for check in of(tmp_path, CheckRecord)] == ["lag", "accounts"]


async def test_others_who_use_the_server_are_named_as_a_reason_and_may_be_allowed(tmp_path: Path):
    async with serving(tmp_path, fake={"step_seconds": 0.02}) as served:
        other = asyncio.create_task(served.chat("I am here too.", max_tokens=3000))
        await served.until_metric("antiphon_requests_running", 1)
        settings = replace(PATIENT, shared=True)
        (outcome,) = await run(served.url, tmp_path / "shared", stages(requests=2), settings)
        assert all(check.passed for check in outcome.checks)
        other.cancel()
        await served.until_metric("antiphon_requests_running", 0)
        planned = stages(requests=9)[0]
        async with load_test(served.url, tmp_path / "alone", watcher=Neighbour(served)) as test:
            outcome = await test.run_stage(planned)
    (accounts,) = (check for check in outcome.checks if check.check == "accounts")
    assert accounts.differences[0] == "received: the server counted 10, the client 9"


def metrics(received: int, finished: int, prompt: int, generated: int) -> bytes:
    lines = [
        f'antiphon_requests_received_total{{endpoint="chat"}} {received}',
        f'antiphon_requests_finished_total{{endpoint="chat"}} {finished}',
        f"antiphon_prompt_tokens_total {prompt}",
        f"antiphon_generated_tokens_total {generated}",
    ]
    body = "\n".join([*lines, ""]).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Liar:
    """A server that answers each request, and lies where it is told to."""

    def __init__(self, *, counts_double: bool = False, forgets_every: int = 0) -> None:
        self.counts_double = counts_double
        self.forgets_every = forgets_every
        self.answers = self.busy = 0

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.path == "/metrics":
            counted = self.answers * (1 + self.counts_double)
            writer.write(metrics(counted, counted, 10 * counted, 2 * self.answers))
        elif asked.path == "/v1/models":
            writer.write(whole("200 OK", {"data": [{"id": "liar"}]}))
        else:
            self.answers += 1
            self.busy += 1
            await asyncio.sleep(0.01)
            is_forgetful = self.forgets_every and self.answers % self.forgets_every == 0 and self.busy > 1
            self.busy -= 1
            second = "load" if is_forgetful else "quiet"
            writer.write(STREAM + chunk(part("under ") + part(second) + ending(2)) + b"0\r\n\r\n")


async def test_a_server_that_counts_wrongly_is_caught_by_name_and_numbers(tmp_path: Path):
    async with canned(Liar(counts_double=True)) as server:
        (outcome,) = await run(server.url, tmp_path, stages(users="2", requests=6))
    (accounts,) = (check for check in outcome.checks if check.check == "accounts")
    assert accounts.differences == [
        "received: the server counted 12, the client 6",
        "finished: the server counted 12, the client 6",
        "prompt_tokens: the server counted 120, the client 60",
    ]
    async with canned(Liar()) as server:
        (outcome,) = await run(server.url, tmp_path / "honest", stages(users="2", requests=6))
    assert all(check.passed for check in outcome.checks)


async def test_metrics_elsewhere_are_read_without_the_key_and_may_hang(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("antiphon.bench.server._METRICS_SECONDS", 0.3)
    liar, num_scrapes = Liar(), 0

    async def tells(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal num_scrapes
        num_scrapes += 1
        if num_scrapes > 3:
            await asyncio.sleep(3600)
        assert asked.path == "/server/metrics"
        writer.write(metrics(liar.answers, liar.answers, 10 * liar.answers, 2 * liar.answers))

    async with canned(liar) as server, canned(tells) as monitor:
        tested = Server(Target(server.url, api_key="k", metrics_url=f"{monitor.url}/server/metrics"), Sampling(), 60)
        await tested.prepare()
        prompts = built_in("chat", 0)
        async with LoadTest(tested, prompts, PATIENT, tmp_path, {}, Silent()) as test:
            outcome = await test.run_stage(stages(requests=3)[0])
    assert {asked.headers.get("authorization") for asked in monitor.asked} == {None}
    assert {asked.headers.get("authorization") for asked in server.asked} == {"Bearer k"}
    (accounts,) = (check for check in outcome.checks if check.check == "accounts")
    assert accounts.differences == ["the server's metrics could no longer be read"]


async def test_a_server_that_answers_otherwise_under_load_is_caught(tmp_path: Path):
    settings = replace(PATIENT, check_same=True)
    async with canned(Liar(forgets_every=3)) as server, load_test(server.url, tmp_path, settings) as test:
        await test.run_stage(stages(users="4", requests=12)[0])
        same = await test.check_same()
    assert not same.passed
    assert same.compared == 12
    assert "the answer differs from character 6 on: 'under load' under load, 'under quiet' alone" in same.differences[0]


async def test_fields_that_a_server_does_not_know_are_left_out_and_its_words_are_shown(tmp_path: Path):
    async def strict(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if unknown := {"ignore_eos", "stream_options"} & asked.body.keys():
            error = {"error": {"message": f"unknown: {sorted(unknown)[0]}"}}
            writer.write(whole("400 Bad Request", error))
        elif asked.headers.get("authorization") != "Bearer right":
            writer.write(whole("401 Unauthorized", {"error": {"message": "Who are you?"}}))
        else:
            writer.write(STREAM + chunk(part("x") + ending(1)) + b"0\r\n\r\n")

    async with canned(strict) as server:
        right = Server(Target(server.url, model="m", api_key="right"), Sampling(is_exact=True, max_tokens=3), 60)
        await right.prepare()
        body = json.loads(right.body(built_in("chat", 0), 0, 0))
        assert body.keys() == {"model", "temperature", "stream", "max_tokens", "messages"}
        with pytest.raises(AntiphonError, match=r"status 401, Who are you\?"):
            await Server(Target(server.url, model="m", api_key="wrong"), Sampling(), 60).prepare()
        with pytest.raises(AntiphonError, match="name the model with --model"):
            await Server(Target(server.url, api_key="right"), Sampling(), 60).prepare()
        right.close()


async def test_prompts_of_a_size_have_about_so_many_tokens_by_the_servers_own_counting(served: Served, tmp_path: Path):
    server = Server(Target(served.url), Sampling(max_tokens=1), 60)
    await server.prepare()
    prompts = await server.sized_prompts(300, 0)
    with pytest.raises(AntiphonError, match="--input-tokens is 3"):
        await server.sized_prompts(3, 0)
    server.close()
    (outcome,) = await run(served.url, tmp_path, stages(users="2", requests=6), prompts=prompts)
    assert all(240 <= each.prompt_tokens <= 360 for each in outcome.requests)


async def test_completions_and_answers_in_one_piece_are_measured_too(served: Served, tmp_path: Path):
    (tmp_path / "prompts").write_text('{"prompt": "Once"}\nUpon\n')
    for number, sampling in enumerate([Sampling("completions", 5), Sampling("chat", 5, stream=False)]):
        folder = tmp_path / str(number)
        (outcome,) = await run(
            served.url, folder, stages(requests=4), sampling=sampling, prompts=FilePrompts(tmp_path / "prompts")
        )
        assert {(each.end, each.answer_tokens) for each in outcome.requests} == {("answered", 5)}
        assert all(check.passed for check in outcome.checks)


def antiphon(*arguments: str, limit: str = "true") -> subprocess.Popen[str]:
    command = shlex.join([sys.executable, "-m", "antiphon", "bench", *arguments])
    return subprocess.Popen(
        ["bash", "-c", f"{limit}; exec {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_the_command_runs_to_its_end_and_stops_in_good_order(served: Served, tmp_path: Path):
    options = (served.url, "--output", str(tmp_path / "out"), "--max-tokens", "4", "--max-lag", "1e9")
    ended = antiphon("--users", "2", "-n", "5", "--check-same", *options)
    out, err = await asyncio.to_thread(ended.communicate)
    assert ended.returncode == 0, err
    assert str(tmp_path / "out") in out + err
    assert len(of(tmp_path / "out", RequestRecord)) == 5

    full = antiphon("-n", "500", *(option.replace("/out", "/full") for option in options), limit="ulimit -f 24")
    _, err = await asyncio.to_thread(full.communicate)
    assert full.returncode == 1, err
    assert err.strip().splitlines()[-1].endswith("journal.jsonl cannot be written: File too large")
    assert "Traceback" not in err

    long = antiphon(served.url, "--seconds", "600", "--output", str(tmp_path / "long"), "--max-tokens", "4")
    journal = tmp_path / "long" / "journal.jsonl"
    while not (journal.exists() and journal.stat().st_size > 50_000):  # another process's file
        assert long.poll() is None, long.communicate()
        await asyncio.sleep(0.05)
    long.send_signal(signal.SIGINT)
    _, err = await asyncio.to_thread(long.communicate)
    assert long.returncode == 130, err
    assert "Traceback" not in err
    (stage,) = of(tmp_path / "long", StageRecord)
    assert stage.interrupted
    assert stage.requests >= len(of(tmp_path / "long", RequestRecord)) > 10


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--users", "0"], "--users"),
        (["--users", "2", "--ramp", "1..3"], "--users and --ramp"),
        (["--rate", "2", "--users", "1,2"], "--users"),
        (["--burstiness", "2"], "--rate"),
        (["--rate", "2", "--arrivals", "poisson", "--burstiness", "2"], "--burstiness"),
        (["--rate", "2", "--arrivals", "daily"], "--arrivals"),
        (["--retries", "always"], "--retries"),
        (["--endpoint", "images"], "--endpoint"),
        (["--timeout", "0"], "--timeout"),
        (["--extra-body", "[1]"], "--extra-body"),
        (["--extra-body", "{"], "--extra-body"),
        (["--header", "x"], "--header"),
        (["--api-key", "a\nb"], "--api-key"),
        (["--ca-file", "/none"], "--ca-file"),
        (["--output-tokens", "3", "--max-tokens", "4"], "--output-tokens or --max-tokens"),
        (["--resume"], "--output"),
        (["--think-time", "long"], "--think-time"),
    ],
)
async def test_wrong_options_are_one_clear_line(options, named, capsys, monkeypatch):
    from antiphon.cli import main

    monkeypatch.setattr(sys, "argv", ["antiphon", "bench", "127.0.0.1:1", *options])
    with pytest.raises(SystemExit) as stopped:
        await asyncio.to_thread(main)
    err = capsys.readouterr().err
    assert stopped.value.code in (1, 2)
    assert named in err
    assert len(err.strip().splitlines()) == 1

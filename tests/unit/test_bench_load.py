"""What a load test sends and when: arrivals, ramps, stages, prompts, pauses; and how it judges accounts and answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice, pairwise
from math import inf, sqrt
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import Any

import pytest
from command_line import commands, run_antiphon
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples

from antiphon.bench.about import command_without_secrets, without_secrets
from antiphon.bench.accounts import reconcile
from antiphon.bench.answers import Answer
from antiphon.bench.arrivals import ThinkTime, due_times, ramp_starts
from antiphon.bench.journal import Journal, current, read
from antiphon.bench.lag import BUCKETS, LagMeter
from antiphon.bench.prompts import SETS, FilePrompts, built_in, sized
from antiphon.bench.records import CheckRecord, RequestRecord, RunRecord, StageRecord
from antiphon.bench.requests import Exchange, Request
from antiphon.bench.retries import pause, retry_after
from antiphon.bench.same import Said, check_same
from antiphon.bench.scrape import Scrape
from antiphon.bench.stages import Stage, stages
from antiphon.errors import AntiphonError, ConfigError

FIXED = settings(max_examples=examples(40), deadline=None)


# ---- Arrivals and users ----


@FIXED
@given(
    st.floats(0.1, 50),
    st.sampled_from(["poisson", "gamma", "constant"]),
    st.floats(0.3, 4),
    st.integers(0, 1 << 30),
)
def test_arrivals_have_the_rate_and_the_spread_that_were_asked_for(rate, arrivals, burstiness, seed):
    number = 4000
    times, again = (
        list(islice(due_times(rate, arrivals, burstiness, Random(seed)), number))  # noqa: S311
        for _ in range(2)
    )
    assert times == again
    intervals = [after - before for before, after in pairwise([0.0, *times])]
    spread = {"poisson": 1.0, "gamma": 1 / sqrt(burstiness), "constant": 0.0}[arrivals]
    # Six standard errors of the mean; the spread of a sample is less certain where the tail is heavy.
    assert abs(fmean(intervals) * rate - 1) <= 6 * spread / sqrt(number) + 1e-6
    assert abs(pstdev(intervals) * rate - spread) <= 0.25 * spread + 1e-6


@FIXED
@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.1, 600))
def test_a_ramp_has_exactly_the_users_that_belong_to_each_moment(first, more, seconds):
    last = first + more
    starts = ramp_starts(first, last, seconds)
    assert (len(starts), starts[:first], starts[-1]) == (last, [0.0] * first, seconds)
    for user, at in enumerate(starts[first:], first + 1):
        assert sum(start <= at for start in starts) == user
        assert at == seconds * ((user - first) / more)


def numbers(**options: Any) -> list[float]:
    return [stage.rate or stage.users for stage in stages(**options)]


def test_stages_are_what_was_typed():
    assert numbers() == [1]
    assert numbers(users="1,2,4,...,20") == [1, 2, 4, 8, 16, 20]
    assert numbers(users="2, 4, …, 11") == [2, 4, 6, 8, 10, 11]
    assert numbers(users="1,3,5,8") == [1, 3, 5, 8]
    assert numbers(rate="0.5,1,2,...,4") == [0.5, 1, 2, 4]
    both = stages(users="1,2", rounds=2, requests=5)
    assert [(each.number, each.users, each.round, each.seconds) for each in both] == [
        (0, 1, 0, 0.0), (1, 2, 0, 0.0), (2, 1, 1, 0.0), (3, 2, 1, 0.0),
    ]  # fmt: skip
    (ramp,) = stages(ramp="1..20", ramp_seconds=6, hold_seconds=12)
    assert (ramp.label, ramp.first_users, ramp.users, ramp.planned_seconds) == ("1 → 20 users", 1, 20, 18)
    assert [stage.label for stage in stages(users="1,2")] == ["1 user", "2 users"]
    assert stages(rate="2.5")[0].label == "2.5 requests/s"
    assert stages(users="3")[0].planned_seconds == 30


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"users": "x"}, "--users"),
        ({"users": "0"}, "--users"),
        ({"users": "1.5"}, "--users"),
        ({"users": "100000"}, "--users"),
        ({"users": "4,2,...,8"}, "--users"),
        ({"users": "1,...,8"}, "--users"),
        ({"users": "1,2,..."}, "--users"),
        ({"users": "1,1.0000001,...,9999"}, "--users"),
        ({"rate": "-1"}, "--rate"),
        ({"rate": "nan"}, "--rate"),
        ({"ramp": "20..1"}, "--ramp"),
        ({"ramp": "5"}, "--ramp"),
        ({"ramp": "1..20", "users": "3"}, "--users and --ramp"),
        ({"warm_up": 40.0}, "--warm-up"),
    ],
)
def test_loads_that_cannot_be_are_refused_by_the_options_name(options, named):
    with pytest.raises(ConfigError, match=named):
        stages(**options)


def test_pauses_are_a_number_or_a_range():
    assert ThinkTime.parse("2") == ThinkTime(2, 2)
    assert all(1 <= ThinkTime.parse("1..5").draw(Random(seed)) <= 5 for seed in range(50))  # noqa: S311
    for wrong in ("", "x", "-1", "5..1", "1..inf"):
        with pytest.raises(ConfigError, match="--think-time"):
            ThinkTime.parse(wrong)


# ---- Retries ----


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "6500"}, 6.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, -1.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_the_time_to_come_back_is_read_from_either_header(headers, seconds):
    found = retry_after(headers)
    assert found == seconds if seconds != -1.0 else (found or 0) < -1e9


def attempt(end: str = "refused", status: int | None = 503, **fields: Any) -> RequestRecord:
    return RequestRecord(0, 0, end, 0.0, 1.0, status=status, **fields)  # type: ignore[arg-type]


def test_a_client_waits_as_the_official_ones_do():
    draw = Random(1)  # noqa: S311
    assert pause(attempt(retry_after=30.0), draw) == 30.0
    assert pause(attempt(retry_after=121.0), draw) is None
    assert pause(attempt(retry_after=3.0, should_retry=False), draw) is None
    assert pause(attempt("failed", 400), draw) is None
    assert pause(attempt("failed", 400, should_retry=True), draw) is not None
    assert pause(attempt("cut", 200, first_token=0.5), draw) is None
    assert pause(attempt("connection", None), draw) is not None
    for number in range(8):
        wait = min(0.5 * 2**number, 8.0)
        assert 0.75 * wait <= (pause(attempt(attempt=number), draw) or 0) <= wait


# ---- Prompts ----


@pytest.mark.parametrize("name", SETS)
def test_prompts_differ_from_their_first_words_on_and_are_the_same_again(name):
    prompts, again, other = built_in(name, 1), built_in(name, 1), built_in(name, 2)
    assert prompts
    assert again
    assert other
    bodies = [prompts.body(stage, number) for stage in (0, 1) for number in range(50)]
    assert bodies == [again.body(stage, number) for stage in (0, 1) for number in range(50)]
    asked = [body["messages"][-1]["content"] for body in bodies]
    assert len({text[:13] for text in asked}) == 100
    assert other.body(0, 0) != bodies[0]
    shared = {json.dumps(body["messages"][:-1]) for body in bodies}
    assert len(shared) == 1
    assert (len(shared.pop()) > 3000) == (name == "shared-prefix")


def test_prompts_of_a_size_have_so_many_words():
    assert len(sized(40, 0).body(0, 0)["messages"][0]["content"].split()) == 42  # with the mark


def test_prompts_of_a_file_are_texts_or_parts_of_requests(tmp_path: Path):
    path = tmp_path / "prompts"
    lines = [
        "Hello",
        '{"prompt": "Once", "max_tokens": 5}',
        '{"custom_id": "1", "body": {"messages": [{"role": "user", "content": "Hi"}], "top_p": 0.5}}',
    ]
    path.write_text("\n".join(lines) + "\n\n", newline="")
    prompts = FilePrompts(path)
    assert prompts.body(0, 3) == {"messages": [{"role": "user", "content": "Hello"}]}
    assert prompts.body(0, 1) == {"prompt": "Once", "max_tokens": 5}
    assert prompts.body(9, 2)["top_p"] == 0.5
    path.write_text("one\u2028line\n\n\n{")
    with pytest.raises(ConfigError, match="line 4 is not JSON"):
        FilePrompts(path)
    turns = [[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], [], [{"from": "gpt", "value": "x"}]]
    path.write_text(json.dumps([{"id": "1", "conversations": each} for each in turns]))
    assert [FilePrompts(path).body(0, number) for number in range(2)] == [
        {"messages": [{"role": "user", "content": "Hi"}]}
    ] * 2


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "no prompts"),
        (b"ok\n{x", "line 2 is not JSON"),
        (b'{"text": 1}', "messages"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1]", "ShareGPT"),
    ],
)
def test_files_that_are_no_prompts_are_refused_by_line(tmp_path: Path, content, named):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(ConfigError, match=named):
        FilePrompts(tmp_path / "p")
    with pytest.raises(ConfigError, match="neither a file nor one of chat, documents"):
        FilePrompts(tmp_path / "poems")


# ---- Accounts ----


def answered(number: int, prompt: int = 10, thought: int = 0, answer: int = 5) -> RequestRecord:
    return RequestRecord(
        0, number, "answered", 0, 1, status=200, prompt_tokens=prompt, thought_tokens=thought, answer_tokens=answer
    )


COUNTERS = {"received": 4.0, "unanswered": 1.0, "finished": 3.0, "prompt_tokens": 30.0, "generated_tokens": 21.0}
REQUESTS = [answered(0), answered(1, thought=2), answered(2, answer=9), attempt()]


def test_accounts_that_agree_pass():
    check = reconcile(0, REQUESTS, {**COUNTERS, "reasoning_tokens": 2.0})
    assert (check.passed, check.compared, check.differences) == (True, 6, [])


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("by", [-1, 1])
def test_a_count_that_is_off_by_one_is_named_with_both_numbers(name, by):
    check = reconcile(0, REQUESTS, {**COUNTERS, name: COUNTERS[name] + by})
    assert not check.passed
    assert check.differences == [
        f"{name}: the server counted {COUNTERS[name] + by:.0f}, the client {COUNTERS[name]:.0f}"
    ]
    assert reconcile(0, REQUESTS, {**COUNTERS, name: COUNTERS[name] + by}, shared=True).passed == (by > 0)


@pytest.mark.parametrize(
    ("extra", "grown", "passes"),
    [
        (attempt("connection", None), {}, True),  # it may have reached the server, or not
        (attempt("connection", None), {"received": 1}, True),
        (attempt("connection", None), {"received": 2}, False),
        (attempt("timeout", None), {"received": 1, "finished": 1, "generated_tokens": 500}, True),
        (attempt("cancelled", 200), {"received": 1, "generated_tokens": 7}, True),
        (attempt("cancelled", 200), {}, False),  # it had a status, so it was received
        (attempt("failed", 500), {"received": 1, "unanswered": 1, "prompt_tokens": 9}, True),
        (attempt("failed", 400), {"received": 1, "unanswered": 1}, True),
        (attempt("failed", 400), {"received": 1, "unanswered": 1, "prompt_tokens": 9}, False),
        (attempt("failed", 400), {"received": 1}, False),
        (attempt(), {"received": 1, "unanswered": 1, "prompt_tokens": 9}, False),
        (attempt(), {"received": 1, "unanswered": 1, "prompt_tokens": 9, "refused": 1}, True),  # dropped in the queue
        (attempt(), {"received": 1, "unanswered": 1, "prompt_tokens": 9, "refused": 2}, False),
        (attempt("failed", 401), {}, True),
        (attempt("refused", 503, code="too_many_connections"), {}, True),
        (attempt("cut", 200), {"received": 1, "finished": 1}, True),
    ],
)
def test_what_a_client_cannot_know_is_a_range(extra, grown, passes):
    counters = {name: COUNTERS.get(name, 0) + grown.get(name, 0) for name in {**COUNTERS, **grown}}
    assert reconcile(0, [*REQUESTS, extra], counters).passed == passes


def test_a_server_that_was_restarted_is_not_compared():
    check = reconcile(0, REQUESTS, {**COUNTERS, "finished": -7.0})
    assert (check.passed, len(check.differences)) == (False, 1)
    assert "restarted" in check.differences[0]
    assert reconcile(0, REQUESTS, {}).note == "the server has no counters to compare with"


def test_metrics_of_each_server_are_read():
    ours = "# TYPE x counter\n" + "\n".join(
        [
            'antiphon_requests_received_total{endpoint="chat"} 3',
            'antiphon_requests_received_total{endpoint="messages"} 4',
        ]
        + [f'antiphon_kv_cache_usage_ratio{{engine="{engine}"}} 0.{engine}' for engine in (1, 3)]
        + [f'antiphon_process_cpu_seconds_total{{process="p{number}"}} 1.5' for number in range(2)]
        + ["antiphon_requests_received_total_other 9", "antiphon_degrade_level 2"]
    )
    scrape = Scrape.parse(ours)
    assert scrape
    assert (scrape.server, scrape.counters["received"]) == ("antiphon", 7)
    sample = scrape.sample(2.0, 5)
    assert (sample.at, sample.users, sample.kv_usage, sample.cpu_seconds, sample.degrade_level) == (2.0, 5, 0.2, 3.0, 2)
    assert sample.running is None
    vllm = Scrape.parse('vllm:request_success_total{finished_reason="stop"} 2\nvllm:num_requests_running{a="b"} 1.0\n')
    assert vllm
    assert (vllm.server, vllm.counters["finished"], vllm.gauges["running"]) == ("vllm", 2, 1)
    llama = Scrape.parse("# HELP x\nllamacpp:tokens_predicted_total 17\nllamacpp:requests_deferred 0\n")
    assert llama
    assert llama.counters["generated_tokens"] == 17
    assert Scrape.parse("go_goroutines 7\n") is None
    assert Scrape.parse("antiphon_requests_received_total{ many\n") is None


# ---- Answers alone ----


def answer_of(text: str, thought: str = "") -> Answer:
    answer = Answer(stream=False)
    message = {"content": text, "reasoning_content": thought}
    answer.feed(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode(), 0.0)
    answer.finish(0.0)
    return answer


class Alone:
    """A server that nobody else asks; it says what a function makes of the request."""

    def __init__(self, say: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self._say = say

    async def __call__(self, body: bytes) -> Exchange:
        self.asked.append(json.loads(body))
        text = self._say(json.loads(body))
        record = RequestRecord(-1, 0, "answered" if text is not None else "refused", 0, 1)
        return Exchange(Request(-1, 0, body), record, answer_of(text or ""))


def said(number: int, text: str, **fields: Any) -> Said:
    return Said(json.dumps({"n": number % 3}), "", text, 0, number, **fields)


async def test_equal_answers_pass_and_each_request_is_asked_once():
    alone = Alone(lambda body: f"answer {body['n']}")
    check = await check_same([said(number, f"answer {number % 3}") for number in range(9)], alone)
    assert (check.passed, check.compared, check.differences, len(alone.asked)) == (True, 9, [], 3)


async def test_a_server_that_says_something_else_under_load_is_caught_at_the_first_character():
    alone = Alone(lambda body: f"answer {body['n']}, of course")
    check = await check_same([said(0, "answer 0, of course"), said(1, "answer 1, of coarse"), said(2, "answer")], alone)
    assert not check.passed
    assert check.compared == 3
    assert check.differences == [
        "stage 0, request 1: the answer differs from character 15 on: 'answer 1, of coarse' under load, "
        "'answer 1, of course' alone",
        "stage 0, request 2: the answer differs from character 6 on: 'answer' under load, 'answer 2, of course' alone",
    ]
    assert check.note.startswith("2 of 3 answers differ")


async def test_thoughts_are_compared_too():
    check = await check_same([replace_thought(said(0, "x"), "hm")], Alone(lambda _: "x"))
    assert check.differences == [
        "stage 0, request 0: the thought differs from character 0 on: 'hm' under load, '' alone"
    ]


def replace_thought(found: Said, thought: str) -> Said:
    return Said(found.body, thought, found.text, found.stage, found.number)


async def test_degraded_answers_are_compared_within_their_limits():
    alone = Alone(lambda body: "long answer"[: body.get("max_tokens", 99)])
    check = await check_same([said(0, "long", degraded={"level": 2, "max_tokens": 4}), said(0, "long answer")], alone)
    assert (check.passed, check.compared) == (True, 2)
    assert alone.asked == [{"n": 0, "max_tokens": 4}, {"n": 0}]
    assert "1 had limits that the server lowered" in check.note


async def test_nothing_compared_is_no_success():
    check = await check_same([said(0, "x")], Alone(lambda _: None))
    assert (check.passed, check.compared) == (False, 0)
    assert "1 requests were not answered alone" in check.note
    assert (await check_same([said(n, "x") for n in range(3)], Alone(lambda _: "x"), limit=2)).note.endswith(
        "1 requests were left out"
    )


# ---- The journal, and the lag ----


def test_a_torn_line_is_ignored_and_a_repeated_stage_counts_once(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    run = RunRecord(1, "s", "http://x", "m", [], 0.0, "0", {}, {})
    stopped = StageRecord(0, "1 user", "users", 1.0, 2.0, interrupted=True)
    complete = StageRecord(0, "1 user", "users", 5.0, 9.0)
    with Journal(path) as journal:
        for record in (run, replace_times(answered(0), 1.5), stopped, CheckRecord(0, "lag", False)):
            journal.write(record)
    with path.open("ab") as file:
        file.write(b'{"type":"request","stage":')
    assert len(read(path)) == 4
    with Journal(path) as journal:
        for record in (
            replace_times(answered(0), 6.0),
            replace_times(answered(1), 7.0),
            complete,
            CheckRecord(0, "lag", True),
        ):
            journal.write(record)
        journal.write(replace_times(answered(0), 20.0))  # of a stage that never ended
    records = read(path)
    assert len(records) == 9
    kept = current(records)
    assert [type(each) for each in kept] == [RunRecord, RequestRecord, RequestRecord, StageRecord, CheckRecord]
    assert [each.sent for each in kept if isinstance(each, RequestRecord)] == [6.0, 7.0]
    path.write_bytes(b'{"type":"run"}\n' + path.read_bytes())
    with pytest.raises(AntiphonError, match="line 1 is not a record"):
        read(path)


def replace_times(record: RequestRecord, sent: float) -> RequestRecord:
    return RequestRecord(record.stage, record.number, record.end, sent, sent + 0.5)


async def test_the_lag_meter_sees_a_loop_that_was_blocked():
    import asyncio
    import time

    meter = LagMeter()
    meter.start()
    await asyncio.sleep(0.05)
    time.sleep(0.3)  # noqa: ASYNC251  # this is the fault
    await asyncio.sleep(0.05)
    await meter.stop()
    assert meter.max >= 0.25
    assert meter.p99 == meter.max  # there were fewer than a hundred timers
    assert sum(meter.histogram) >= 3
    assert sum(meter.histogram[-4:]) >= 1
    assert BUCKETS[-1] == inf


# ---- Flags of other tools ----


def options_of(monkeypatch: pytest.MonkeyPatch, *typed: str) -> Any:
    """The options that a command line comes to."""
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.load_testing.run_load_test", lambda options, _: seen.append(options))
    result = run_antiphon("bench", *typed)
    assert result.exit_code == 0, result.output
    return seen[0]


OURS = "http://h:1 --rate 2.5 --users 8 -n 100 --input-tokens 200 --output-tokens 128"
VLLM = (
    "--backend openai-chat --base-url http://h:1 --endpoint /v1/chat/completions --dataset-name random "
    "--random-input-len 200 --random-output-len 128 --request-rate 2.5 --max-concurrency 8 --num-prompts 100 "
    "--save-result --percentile-metrics ttft,tpot"
)
WITH_EQUALS = "--host=h --port=1 --request-rate=2.5 -c 8 --num-prompts=100 --random-input-len=200 --output-len=128"
GUIDELLM = "--target http://h:1 --rate 2.5 --concurrency 8 --max-requests 100 --input-len 200 --output-len 128"


@pytest.mark.parametrize("typed", [OURS, VLLM, WITH_EQUALS, GUIDELLM], ids=["ours", "vLLM", "equals", "guidellm"])
def test_names_of_other_tools_mean_the_same(monkeypatch, typed):
    options = options_of(monkeypatch, *typed.split())
    assert (options.url, options.rate, options.users, options.requests) == ("http://h:1", "2.5", "8", 100)
    assert (options.input_tokens, options.output_tokens, options.endpoint) == (200, 128, "chat")


def test_every_option_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    command = commands().commands["bench"].commands["run"]
    options = [each for each in command.params if each.param_type_name == "option"]
    assert len(options) > 40
    for option in options:
        assert any(re.search(rf"{name}\b", text) for name in (*option.opts, *option.secondary_opts)), option.opts


def test_vllms_infinite_rate_is_all_requests_at_once_or_as_many_as_may_be(monkeypatch):
    from antiphon.commands.bench_settings import planned_stages

    (stage,) = planned_stages(options_of(monkeypatch, "h:1", "--request-rate", "inf", "--num-prompts", "40"))
    assert (stage.shape, stage.users, stage.requests) == ("users", 40, 40)
    typed = ("h:1", "--request-rate", "inf", "--num-prompts", "40", "--max-concurrency", "8")
    (stage,) = planned_stages(options_of(monkeypatch, *typed))
    assert (stage.shape, stage.users, stage.requests) == ("users", 8, 40)


@pytest.mark.parametrize("typed", [("--target",), ("--target", "h:1", "--port", "2"), ("--backend",)])
def test_addresses_as_flags_need_a_value_and_are_given_once(typed):
    assert run_antiphon("bench", *typed).exit_code == 2


@pytest.mark.parametrize(
    "typed",
    [
        ("http://h", "--api-key", "s3cret", "-H", "X-Key: s3cret", "--insecure"),
        ("http://h", "--api-key=s3cret", "--header=X-Key: s3cret", "-k"),
        ("http://h", "-HX-Key: s3cret", "-kH", "X-Key: s3cret", "-kHX-Key: s3cret", "-H=X-Key: s3cret", "-n", "5"),
    ],
)
def test_keys_are_not_written_into_the_results(typed):
    shown = without_secrets(["/usr/bin/antiphon", "bench", *typed])
    assert "s3cret" not in " ".join(shown)
    assert shown[:3] == ["antiphon", "bench", "http://h"]
    assert shown[-1] == typed[-1]


def test_a_long_command_of_a_server_is_not_taken_for_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_antiphon("bench", "compare", f"no-such-program {'x' * 300} --port {{port}}", "127.0.0.1:1")
    assert result.exit_code == 2
    assert "the server cannot be started: " in result.output


def test_keys_in_the_command_of_a_server_are_not_written_either():
    command = "antiphon serve 'my model' --api-key s3cret --admin-key=s3cret --max-batch-tokens 8 --port {port}"
    shown = "antiphon serve 'my model' --api-key *** '--admin-key=***' --max-batch-tokens 8 --port {port}"
    assert command_without_secrets(command) == shown
    assert without_secrets(["antiphon", "bench", "compare", command, "h:1"])[3:] == [shown, "h:1"]
    assert "s3cret" not in command_without_secrets("serve --port {port} --api-key 's3cret")


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (("http://me:s3cret@h",), "URL"),
        (("http://h", "--metrics-url", "http://me:s3cret@h/metrics"), "--metrics-url"),
        (("http://h", "--metrics-url", "http://[h"), "--metrics-url"),
    ],
)
def test_an_address_with_a_password_or_a_mistake_is_refused(typed, named):
    result = run_antiphon("bench", *typed)
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {named}")
    assert "s3cret" not in result.output


@pytest.mark.parametrize(
    "typed", [("h", "--users", "zero"), ("h", "--slo", "fast"), ("h", "--resume"), ("report", "/none"), ("h", "--usrs")]
)
def test_a_wrong_option_is_exit_status_2_however_it_is_found_out(typed):
    result = run_antiphon("bench", *typed)
    assert result.exit_code == 2
    assert "bench run" not in result.output  # nobody typed that


def test_help_of_load_tests_names_the_other_commands():
    text = run_antiphon("bench", "--help").output
    assert "antiphon bench compare" in text
    assert "antiphon bench report" in text


def test_stages_end_when_they_say():
    assert replace(Stage(0, "users"), requests=5).planned_seconds == 0

"""How a load test judges a server: by its accounts, and by answers under load against answers alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from request_records import answered, attempt

from antiphon.bench.accounts import reconcile
from antiphon.bench.answers import Answer
from antiphon.bench.records import RequestRecord
from antiphon.bench.requests import Exchange, Request
from antiphon.bench.same import Said, check_same
from antiphon.bench.scrape import Scrape

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

"""What a load test sends and when: arrivals, ramps, stages, retries, prompts, pauses."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from math import sqrt
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples
from request_records import attempt

from antiphon.bench.arrivals import ThinkTime, due_times, ramp_starts
from antiphon.bench.prompts import SETS, FilePrompts, built_in, sized
from antiphon.bench.retries import pause, retry_after
from antiphon.bench.stages import stages
from antiphon.errors import ConfigError

FIXED = settings(max_examples=examples(40), deadline=None)


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

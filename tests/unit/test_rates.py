"""Token buckets on a clock of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.api_keys import read_api_keys
from antiphon.errors import InvalidRequest, RateLimited
from antiphon.rates import Bucket, Rates


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(rates: Rates, key: str = "") -> dict[str, str]:
    return {name.decode().removeprefix("x-ratelimit-"): value.decode() for name, value in rates.headers(key)}


def test_a_bucket_holds_a_minutes_worth_and_fills_evenly():
    clock = Clock()
    bucket = Bucket(60, clock)
    assert [bucket.take(1) for _ in range(60)] == [0.0] * 60
    assert bucket.take(1) == pytest.approx(1.0)
    clock.now += 0.5
    assert bucket.take(1) == pytest.approx(0.5)
    clock.now += 0.5
    assert bucket.take(1) == 0.0
    clock.now += 1e6
    assert bucket.level == 60


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 300), st.integers(0, 600)), max_size=40),
)
def test_over_any_time_no_more_is_used_than_the_rate_and_what_was_running(limit, steps):
    """Every step some time passes, and one request reserves, runs at once to its end, and settles."""
    clock = Clock()
    rates = Rates(tokens_per_minute=limit, clock=clock)
    used = worst = 0
    for seconds, prompt, answer in steps:
        clock.now += seconds
        try:
            reservation = rates.reserve("", prompt, answer)
        except (RateLimited, InvalidRequest):
            continue
        reservation.settle(prompt + answer)
        used += prompt + answer
        worst = max(worst, answer)
        assert used <= limit + (clock.now - 1000) * limit / 60 + worst + 1e-6


@given(st.integers(1, 1000), st.integers(0, 2000), st.integers(0, 5000))
def test_what_is_refused_costs_nothing_and_comes_in_after_the_wait_it_was_told(limit, prompt, answer):
    clock = Clock()
    rates = Rates(tokens_per_minute=limit, clock=clock)
    rates.reserve("", limit, 0).settle(limit)
    if prompt > limit:
        with pytest.raises(InvalidRequest):
            rates.reserve("", prompt, answer)
        return
    if prompt + answer and min(prompt + min(answer, limit // 4), limit):
        with pytest.raises(RateLimited) as error:
            rates.reserve("", prompt, answer)
        assert error.value.retry_after is not None
        clock.now += error.value.retry_after + 1e-6
    rates.reserve("", prompt, answer).settle(0)


def test_tokens_are_set_aside_and_settled_once():
    clock = Clock()
    rates = Rates(tokens_per_minute=1000, clock=clock)
    first = rates.reserve("", 100, 50)
    assert told(rates)["remaining-tokens"] == "850"
    long = rates.reserve("", 100, 100_000)
    assert told(rates)["remaining-tokens"] == "500"
    first.settle(110)
    first.settle(0)
    assert told(rates)["remaining-tokens"] == "540"
    long.settle(1640)
    assert told(rates) == {"limit-tokens": "1000", "remaining-tokens": "0", "reset-tokens": "1m45s"}
    with pytest.raises(RateLimited, match=r"1,000 tokens.*Try again in 46s") as error:
        rates.reserve("", 9, 1)
    assert error.value.type == "tokens"
    clock.now += 46
    rates.reserve("", 9, 1)


def test_a_key_has_its_own_limits_or_the_common_ones():
    keys = read_api_keys(["a:x"])
    own = [
        keys[0],
        type(keys[0])("b", b"", requests_per_minute=2),
        type(keys[0])("c", b"", requests_per_minute=0, tokens_per_minute=7),
    ]
    rates = Rates(own, requests_per_minute=1, clock=Clock())
    rates.take_request("a")
    with pytest.raises(RateLimited, match=r"'a' is at its limit of 1 requests a minute\. Try again in 1m0s"):
        rates.take_request("a")
    for _ in range(2):
        rates.take_request("b")
    with pytest.raises(RateLimited):
        rates.take_request("b")
    for _ in range(100):
        rates.take_request("c")
    assert told(rates, "c") == {"limit-tokens": "7", "remaining-tokens": "7", "reset-tokens": "0s"}
    assert told(rates, "b") == {"limit-requests": "2", "remaining-requests": "0", "reset-requests": "1m0s"}


def test_without_limits_nothing_is_counted():
    rates = Rates(read_api_keys(["a:x"]))
    assert not rates
    assert rates.headers("a") == []
    rates.reserve("a", 10**9, 10**9).settle(10**9)
    assert Rates(tokens_per_minute=1)
    assert Rates([type(key)(key.name, key.digest, tokens_per_minute=1) for key in read_api_keys(["a:x"])])


@pytest.mark.parametrize(
    ("missing", "text"), [(0, "0s"), (1, "1s"), (59, "59s"), (60, "1m0s"), (0.25, "250ms"), (0.9999, "1000ms")]
)
def test_durations_are_written_as_openai_writes_them(missing, text):
    clock = Clock()
    bucket = Bucket(60, clock)
    bucket.settle(0, 60)
    clock.now += 60 - missing
    assert dict(bucket.headers("x"))[b"x-ratelimit-reset-x"].decode() == text


def test_new_keys_and_limits_keep_what_was_used_of_those_that_stay():
    clock = Clock()
    rates = Rates(read_api_keys(["a:key-of-a,b:key-of-b,c:key-of-c"]), requests_per_minute=10, clock=clock)
    for key in "abc":
        for _ in range(4):
            rates.take_request(key)
    keys = read_api_keys(["a:key-of-a,b:key-of-b,d:key-of-d"])
    same = rates.renewed(keys, 10, 0)
    assert [told(same, key).get("remaining-requests") for key in "abcd"] == ["6", "6", None, "10"]
    rates.take_request("a")  # by a request that began before
    assert told(same, "a")["remaining-requests"] == "5"
    assert told(rates.renewed(keys, 20, 0), "a")["remaining-requests"] == "20"
    assert not rates.renewed(keys, 0, 0)


def test_what_was_used_elsewhere_counts_and_may_have_to_be_paid_back():
    clock = Clock()
    rates = Rates(read_api_keys(["pupils:sk-1"]), 60, 600, clock)
    rates.take_request("pupils")
    reservation = rates.reserve("pupils", 100, 50)
    assert (rates.usage["pupils"].requests, rates.usage["pupils"].tokens) == (1, 150)
    reservation.settle(120)
    reservation.settle(120)
    assert rates.usage["pupils"].tokens == 120
    rates.charge("pupils", 119, 600)
    assert told(rates, "pupils")["remaining-tokens"] == "0"
    with pytest.raises(RateLimited):
        rates.take_request("pupils")
    clock.now += 59  # 60 requests too many were made elsewhere
    with pytest.raises(RateLimited):
        rates.take_request("pupils")
    clock.now += 2
    rates.take_request("pupils")
    rates.charge("unknown", 5, 5)


def test_a_reload_keeps_what_is_told_of_usage():
    rates = Rates(read_api_keys(["pupils:sk-1"]), 60, 600)
    reservation = rates.reserve("pupils", 100, 50)
    renewed = rates.renewed(read_api_keys(["pupils:sk-1"]), 120, 600)
    reservation.settle(120)
    assert renewed.usage["pupils"].tokens == 120

"""What peers report is counted once, however often and whenever they are asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ConfigError
from antiphon.peers import GONE_SECONDS, KeyUsage, PeerLedger, UsageReport, new_response_id, read_peers

URL = "http://10.0.0.6:8000"


def report(server: str, tokens: int, *, uptime: float = 0.0, service: float = 0.0) -> UsageReport:
    return UsageReport(server, uptime, {"pupils": KeyUsage(tokens // 10, tokens)}, {"pupils": service})


@given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1))
def test_what_peers_told_is_counted_once_whatever_reports_are_lost_and_across_restarts(uses):
    ledger, counted, lives, used = PeerLedger(), 0, 0, 0
    for tokens, restarts in uses:
        lives, used = (lives + 1, 0) if restarts else (lives, used)
        used += tokens
        if tokens % 3:  # this report is read, the others are lost
            counted += ledger.take(URL, report(str(lives), used)).keys["pupils"].tokens
    counted += ledger.take(URL, report(str(lives), used)).keys["pupils"].tokens
    assert counted == sum_told(uses)


def sum_told(uses: list[tuple[int, bool]]) -> int:
    """What the peers of that history told: of each life, the sum at its last report; of the last life, all of it."""
    told, life, last = 0, 0, 0
    for tokens, restarts in uses:
        if restarts:
            told, life, last = told + last, 0, 0
        life += tokens
        if tokens % 3:
            last = life
    return told + life


def test_reserved_tokens_that_were_not_used_are_given_back():
    ledger = PeerLedger()
    ledger.take(URL, report("a", 100))
    assert ledger.take(URL, report("a", 70)).keys["pupils"].tokens == -30


def test_what_an_older_peer_used_before_this_server_started_is_not_counted():
    ledger = PeerLedger()
    assert ledger.take(URL, report("a", 1000, uptime=1e6)).keys == {}
    assert ledger.take(URL, report("a", 1010, uptime=1e6)).keys["pupils"].tokens == 10


def test_a_server_that_is_its_own_peer_counts_nothing_twice():
    ledger = PeerLedger()
    assert ledger.take(URL, report(ledger.server, 1000)).keys == {}


def test_service_never_shrinks_when_a_peer_forgets_a_client():
    ledger = PeerLedger()
    ledger.take(URL, report("a", 0, service=50.0))
    assert ledger.take(URL, UsageReport("a", 0.0, {}, {})).clients == {}


@pytest.mark.parametrize("typed", ["10.0.0.6:8000", "ftp://10.0.0.6", "http://10.0.0.6:8000/v1", "http://a b"])
def test_what_is_not_the_url_of_a_server_is_refused_by_name(typed):
    with pytest.raises(ConfigError, match="--peer"):
        read_peers([typed])


def test_peers_may_be_separated_by_commas():
    assert read_peers(["http://a:1,http://b:2/", "http://c:3"]) == ("http://a:1", "http://b:2", "http://c:3")


def test_the_holder_of_a_response_is_the_process_that_its_id_names_until_it_is_lost():
    now = 0.0
    ledger, other = PeerLedger(lambda: now), PeerLedger()
    stored = new_response_id(other.server)
    assert ledger.holder_of(stored) is None  # nothing is known of it yet
    ledger.take(URL, report(other.server, 0))
    ledger.take("http://10.0.0.7:8000", report("0" * 16, 0))
    assert ledger.holder_of(stored) == URL
    for foreign in (new_response_id(ledger.server), "resp_gone", f"{stored}0", f"x{stored}", stored.upper(), ""):
        assert ledger.holder_of(foreign) is None
    now = GONE_SECONDS
    assert ledger.holder_of(stored) == URL
    now += 0.1
    assert ledger.holder_of(stored) is None
    ledger.take(URL, report(other.server, 0))  # it was only slow
    assert ledger.holder_of(stored) == URL
    ledger.take(URL, report("1" * 16, 0))  # it was restarted
    assert ledger.holder_of(stored) is None

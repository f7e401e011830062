"""Reading /metrics: samples by name, and the accounts that must close at every scrape."""

from __future__ import annotations

import re


def samples(text: str) -> dict[str, float]:
    """Every sample of a scrape; those of one name that differ in labels are summed under the bare name too."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
            bare = re.sub(r"\{.*", "", name)
            if bare != name:
                found[bare] = found.get(bare, 0.0) + float(value)
    return found


def check_accounts(now: dict[str, float]) -> None:
    """received = refused + accepted + arriving; accepted = finished + aborted + failed + running."""

    def total(what: str) -> float:
        return now.get(f"antiphon_requests_{what}", 0.0)

    assert total("received_total") == total("refused_total") + total("accepted_total") + total("arriving")
    ended = total("finished_total") + total("aborted_total") + total("failed_total")
    assert total("accepted_total") == ended + total("running")


def check_idle(now: dict[str, float]) -> None:
    """Nobody is served: no sequence runs or waits, and no block is in use."""
    for name in ("requests_running", "sequences_running", "sequences_waiting"):
        assert now[f"antiphon_{name}"] == 0, name
    assert blocks_in_use(now) == 0


def blocks_in_use(now: dict[str, float]) -> float:
    """KV blocks in use, of all engines."""
    states = {name: value for name, value in now.items() if name.startswith("antiphon_kv_blocks{")}
    assert states, "no engine says anything"
    return sum(value for name, value in states.items() if 'state="in_use"' in name)

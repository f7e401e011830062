"""What a load test writes while it runs, and how late its own timers are."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from request_records import answered

from antiphon.bench.journal import Journal, current, read
from antiphon.bench.lag import BUCKETS, LagMeter
from antiphon.bench.records import CheckRecord, RequestRecord, RunRecord, StageRecord
from antiphon.errors import AntiphonError


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

"""docs/troubleshooting.md names alarms, metrics and tests that exist, and each of its rows can be linked to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from antiphon.monitoring.alerts import alerts

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SYMPTOMS = TEXT.partition("\n## Alarms")[0]
ROWS = [line for line in SYMPTOMS.splitlines() if line.startswith("| ") and not line.startswith("| what you see")]
CLASSIC = SYMPTOMS.partition("\n## Others")[0]
ALARMS = {alert.name for group in alerts().values() for alert in group}
METRICS = set(re.findall(r"`(antiphon_\w+)", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")))


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| ").split(" | ")]


def test_the_five_most_frequent_troubles_come_first():
    anchors = re.findall(r'<a id="([\w-]+)"', CLASSIC)
    assert anchors == [
        "out-of-memory",
        "processor-at-100-percent",
        "model-cannot-be-loaded",
        "engine-exits-at-once",
        "answers-that-repeat",
    ]
    assert len(ROWS) > 20


def test_every_row_has_an_anchor_of_its_own():
    anchors = [re.findall(r'^\| <a id="([\w-]+)"></a>', row) for row in ROWS]
    assert all(len(found) == 1 for found in anchors)
    every = re.findall(r'<a id="([\w-]+)"', TEXT)
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.findall(r'id="([\w-]+)"', row)[0])
def test_each_row_names_what_notices_it_and_tests_that_exist(row: str):
    see, why, cure, noticed, tests = cells(row)
    assert see
    assert why
    assert cure
    names = re.findall(r"`([\w ]+)`", noticed)
    assert names
    assert set(names) <= ALARMS | METRICS | {"antiphon doctor"}
    for name in set(names) & ALARMS:
        assert f"(#{name.lower()})" in noticed
    found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert found
    for file, name in found:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")

"""The report, tables and folder of a load test: complete in one file, escaped, and with the summary's figures."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree  # of our own SVG

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples

from antiphon.bench import charts
from antiphon.bench.comparison import Comparison, Estimate
from antiphon.bench.comparison_report import comparison_html, comparison_markdown, forest
from antiphon.bench.journal import Journal
from antiphon.bench.limits import goodput, objective
from antiphon.bench.measured_requests import measured_requests
from antiphon.bench.records import CheckRecord, Record, RequestRecord, RunRecord, SampleRecord, StageRecord
from antiphon.bench.report import render
from antiphon.bench.results import read_records, write_results
from antiphon.bench.summary import Summary, summarize
from antiphon.bench.svg import aligned, element, shown, ticks, time_ticks
from antiphon.bench.tables import escaped, markdown, requests_csv
from antiphon.bench.timeline import MOST, timeline
from antiphon.bench.verdict import conclude
from antiphon.errors import ConfigError

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\u202e{{ 7*7 }} | a `b` &amp;"
VOID = {"meta", "br", "img", "link", "input", "hr"}


def run_record(**others: object) -> RunRecord:
    fields: dict[str, object] = {
        "schema": 1,
        "name": "antiphon",
        "url": "http://127.0.0.1:8000",
        "model": "R1",
        "command": ["antiphon", "bench", "http://127.0.0.1:8000"],
        "started_at": 1.7e9,
        "version": "1",
        "machine": {"processor": "some"},
        "options": {"prompts": "chat"},
    }
    return RunRecord(**(fields | others))  # type: ignore[arg-type]


def recorded(users: Sequence[int], text: str = "", seconds: float = 8.0) -> list[Record]:
    """A journal of stages with these numbers of users: latencies grow with the users, and every 9th request fails."""
    records: list[Record] = [run_record(name=text or "antiphon", model=text or "m")]
    at, number = 0.0, 0
    for stage, count in enumerate(users):
        for user in range(count):
            sent = at
            while sent < at + seconds:
                first = sent + 0.1 * count + 0.01 * (number % 7)
                common = {"stage": stage, "number": number, "sent": sent, "user": user, "users": count}
                if number % 9 == 8:
                    records.append(
                        RequestRecord(end="failed", ended=first, status=500, code=text, message=text, **common)  # type: ignore[arg-type]
                    )
                else:
                    records.append(
                        RequestRecord(
                            **common,  # type: ignore[arg-type]
                            end="answered",
                            ended=first + 0.6,
                            first_token=first,
                            first_answer=first + 0.3,
                            last_token=first + 0.6,
                            gaps_ms=[200.0, 100.0, 300.0],
                            prompt_tokens=7,
                            thought_tokens=4,
                            answer_tokens=4,
                        )
                    )
                sent, number = records[-1].ended + 0.01, number + 1  # type: ignore[union-attr]
        for second in range(int(seconds)):
            moment = at + second
            records.append(SampleRecord(moment, count, moment * 1.5, 1e9, 0.02 * count, count, 0.0, 0.0))
        records.append(StageRecord(stage, f"{count} users {text}".strip(), "users", at, at + seconds, users=count))
        at += seconds + 1
    records.append(CheckRecord(0, "same", False, 9, [text or "request 3 differs"], text))
    return records


class Page(HTMLParser):
    """A parsed report: its tags, the text, and the figures of its tables by their place in the summary."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.figures: dict[str, str] = {}
        self.shown: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self._figure = ""
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "data":
            found = dict(attrs)
            self._figure = found["data-of"] or ""
            self.figures[self._figure] = found["value"] or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "data":
            self._figure = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._figure:
            self.shown[self._figure] = data


def page_of(records: list[Record], **options: object) -> tuple[Page, Summary, str]:
    summary = summarize(records, **options)  # type: ignore[arg-type]
    html = render(summary, records)
    return Page(html), summary, html


def at(summary: Summary, place: str) -> object:
    found: object = msgspec.to_builtins(summary)
    for name in place.split("."):
        found = found[int(name)] if isinstance(found, list) else found[name]  # type: ignore[index]
    return found


SHAPES = {"steps": [1, 2, 4, 8], "one stage": [4], "none": [], "repeated": [2, 2, 2]}


@pytest.mark.parametrize("users", SHAPES.values(), ids=SHAPES)
def test_each_figure_of_the_report_is_the_summarys(users: list[int]) -> None:
    options = {
        "limits": goodput(["ttft:500"]),
        "objectives": [objective("p95 ttft < 1s"), objective("error_rate < 50%")],
    }
    page, summary, _ = page_of(recorded(users), **options)
    for place, value in page.figures.items():
        assert float(value) == at(summary, place), place
    assert len(page.figures) >= 20 * len(users)
    for number, stage in enumerate(summary.stages):
        found = stage.latency.first_token
        assert found is not None
        assert page.shown[f"stages.{number}.latency.first_token.p95"] == aligned(found.p95)
        assert page.shown[f"stages.{number}.output_tokens_per_second"] == aligned(stage.output_tokens_per_second)
        assert page.shown[f"stages.{number}.goodput"] == aligned((stage.goodput or 0.0) * 100)


@pytest.mark.parametrize("users", SHAPES.values(), ids=SHAPES)
def test_a_report_needs_no_script_and_no_network(users: list[int]) -> None:
    page, _, html = page_of(recorded(users))
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "image", "use"} & set(page.tags)
    loading = {"src", "href", "xlink:href", "srcset", "style"}
    assert [each for each in page.attributes if each[1] in loading and "//" in each[2]] == []
    assert [each for each in page.attributes if each[1].startswith("on")] == []
    assert "url(" not in html
    assert "@import" not in html
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


@pytest.mark.parametrize("users", [[2], [1, 2, 3]])
def test_whatever_a_server_sends_is_text_in_the_report(users: list[int]) -> None:
    records = recorded(users, EVIL)
    records[0] = run_record(
        name=EVIL,
        url=EVIL,
        model=EVIL,
        command=["antiphon", EVIL],
        version=EVIL,
        machine={EVIL: EVIL},
        options={EVIL: EVIL},
    )
    page, _, html = page_of(records, objectives=[objective("p95 ttft<1s")])
    assert not {"script", "img"} & set(page.tags)
    assert [each for each in page.attributes if each[1].startswith("on")] == []
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_every_chart_is_well_formed_and_described() -> None:
    page, _, html = page_of(recorded([1, 2, 4, 8], EVIL), mean_limit=0.5)
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == page.tags["svg"] > 10
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)  # noqa: S314
        assert root[0].tag == "title"
        assert root[0].text


def test_what_failed_comes_first() -> None:
    records = recorded([1, 2, 4])
    assert conclude(summarize(records)).word == "Check failed"
    passed = [record for record in records if not isinstance(record, CheckRecord)]
    assert conclude(summarize(passed)).word == "Result"
    assert conclude(summarize(passed, objectives=[objective("p50 ttft < 9s")])).word == "Passed"
    missed = conclude(summarize(passed, objectives=[objective("p50 ttft < 300ms")]))
    assert missed.word == "Missed"
    assert "(4 users)" in missed.sentence
    late = conclude(summarize([*records, CheckRecord(0, "lag", False)], objectives=[objective("p50 ttft < 300ms")]))
    assert (late.word, late.kind) == ("Not valid", "doubtful")
    assert "Answers under load differ" in late.sentence  # what else failed is not hidden
    assert "Not met: p50 ttft < 300ms" in late.sentence
    unread = conclude(summarize([*passed, CheckRecord(0, "accounts", False, 0, ["no metrics"])]))
    assert "could not be read" in unread.sentence
    assert "do not agree" not in unread.sentence
    wrong = conclude(summarize([*passed, CheckRecord(0, "accounts", False, 6, ["received: 3, not 4"])]))
    assert "do not agree" in wrong.sentence
    assert "not answered" in late.sentence
    assert conclude(summarize([run_record()])).word == "No result"


def test_a_stage_without_any_answer_has_a_report() -> None:
    failures: list[Record] = [RequestRecord(0, number, "connection", 1.0 * number, 1.0 * number) for number in range(9)]
    page, summary, _ = page_of([run_record(), StageRecord(0, "3 requests/s", "rate", 0.0, 9.0, rate=3.0), *failures])
    assert summary.stages[0].latency.first_token is None
    assert "No token came. 9 of 9 requests were not answered." in page.text.replace("\xa0", " ")


def test_a_timeline_shows_the_middle_of_very_many_requests() -> None:
    many = measured_requests(
        RequestRecord(0, number, "answered", number / 10, number / 10 + 1, first_token=number / 10 + 0.5)
        for number in range(3 * MOST)
    )
    found = timeline(many)
    assert found is not None
    assert (found.total, found.drawn) == (3 * MOST, MOST)
    assert found.begin == MOST / 10  # not near 0
    assert timeline([]) is None


@settings(max_examples=examples(30))
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 9), st.integers(0, 5)), min_size=1, max_size=40))
def test_bars_of_a_timeline_never_overlap(times: list[tuple[float, float, int]]) -> None:
    records = [
        RequestRecord(0, number, "answered", sent, sent + took, user=user, first_token=sent + took / 2)
        for number, (sent, took, user) in enumerate(times)
    ]
    found = timeline(measured_requests(records))
    assert found is not None
    rows: dict[str, list[tuple[float, float]]] = {}
    for bar in ElementTree.fromstring(found.chart).iter("rect"):  # noqa: S314
        left = float(bar.attrib["x"])
        rows.setdefault(bar.attrib["y"], []).append((left, left + float(bar.attrib["width"])))
    for bars in rows.values():
        bars.sort()
        assert all(after[0] >= before[1] - 0.7 for before, after in pairwise(bars))  # least widths


def test_charts_without_values_are_left_out() -> None:
    assert charts.lines("x", [charts.Line("a", [(1.0, None)])], "users") is None
    assert charts.dots("x", [], [], "s", (0.0, 1.0)) is None
    assert charts.strips("x", [], "s") is None


def test_gaps_break_a_line() -> None:
    drawn = charts.lines("x", [charts.Line("a", [(1.0, 1.0), (2.0, None), (3.0, 2.0), (4.0, 1.0)])], "users")
    assert drawn is not None
    assert drawn.count('class="line1"') == 2


def test_attributes_and_content_of_elements_are_escaped() -> None:
    made = element("text", EVIL, class_='"><b>', x=1.04, y=2.0, fill=None)
    root = ElementTree.fromstring(made)  # noqa: S314
    assert root.attrib == {"class": '"><b>', "x": "1", "y": "2"}
    assert list(root) == []


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_even_and_enclose_the_values(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found[0] <= low + span * 1e-6
    assert found[-1] >= low + span - span * 1e-6
    assert 3 <= len(found) <= 8
    times = time_ticks(0.0, span)
    assert all(0 <= value <= span for value in times)
    assert len(times) <= 25


@given(st.floats(1e-6, 1e9))
def test_figures_have_three_digits(value: float) -> None:
    assert float(aligned(value).replace(",", "")) == pytest.approx(value, rel=0.006)
    assert float(shown(value).replace(",", "")) == float(aligned(value).replace(",", ""))
    assert len(re.sub(r"^[0.]+|[.,]", "", aligned(value))) >= 3 or value >= 100


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (7, "7"), (1.5, "1.50"), (9.999, "10.0"), (12345.6, "12,346")])
def test_figures_of_a_table_keep_their_zeros(value: float, text: str) -> None:
    assert aligned(value) == text


def test_a_csv_has_a_line_for_each_attempt_and_no_formulas() -> None:
    refused = RequestRecord(0, 1, "refused", 0.0, 0.1, status=503, code="=1+1", message="@SUM(A1)\x1b", retry_after=1.0)
    retried = RequestRecord(0, 1, "answered", 1.1, 2.0, attempt=1, first_token=1.5, waited=1.0)
    rows = list(csv.DictReader(io.StringIO(requests_csv([refused, retried]))))
    assert [row["attempt"] for row in rows] == ["0", "1"]
    assert rows[0]["code"] == "'=1+1"
    assert rows[0]["message"] == "'@SUM(A1)\\x1b"
    assert [row["first_token_latency"] for row in rows] == ["", "1.5"]


def test_markdown_tables_keep_their_columns_whatever_a_server_sends() -> None:
    text = markdown(summarize(recorded([1, 2], EVIL), objectives=[objective("p95 ttft < 1s")]))
    assert "| stage | check |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) in (15, 6, 5, 4)
    assert not re.search(r"(?<!\\)<", "\n".join(rows))
    assert escaped("a|b\n<i>") == r"a\|b \<i\>"


def test_a_folder_is_written_from_its_journal_with_the_limits_of_the_run(tmp_path: Path) -> None:
    options = {"goodput": "ttft:500", "slo": "p95 ttft < 100ms; error_rate < 50%", "mean_limit": "0.3"}
    with Journal(tmp_path / "journal.jsonl") as journal:
        for record in [run_record(options=options), *recorded([1, 2, 4])[1:]]:
            journal.write(record)
    summary = write_results(tmp_path, read_records(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "journal.jsonl", "summary.json", "report.html", "report.md", "requests.csv",
    }  # fmt: skip
    assert msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary) == summary
    assert [verdict.objective for verdict in summary.stages[0].objectives] == ["p95 ttft < 100ms", "error_rate < 50%"]
    assert summary.stages[0].goodput is not None
    assert [each.limit for each in summary.users_within] == [0.3, 0.3]
    assert not summary.passed


def test_a_folder_without_a_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"journal\.jsonl cannot be read"):
        read_records(tmp_path)


def estimate(**others: object) -> Estimate:
    fields: dict[str, object] = {
        "load": EVIL, "metric": "end to end, P50", "better": "lower", "a": 1.0, "b": 2.0, "ratio": 2.0, "low": 1.5,
        "high": 2.5, "p": 0.001, "winner": "A", "smallest": 1.2, "rounds": 6, "ratios": [1.9, 2.1],
    }  # fmt: skip
    return Estimate(**(fields | others))  # type: ignore[arg-type]


def test_a_comparison_is_one_page_with_its_figures_and_nothing_of_a_server_is_markup() -> None:
    rows = [
        estimate(),
        estimate(metric="answers/s", better="higher", winner=""),
        estimate(low=0.0, high=None, smallest=None, rounds=1, winner=""),
    ]
    comparison = Comparison(1, EVIL, EVIL, "paired rounds", rows, [EVIL])
    html = comparison_html(comparison)
    page = Page(html)
    assert not {"script", "img", "link"} & set(page.tags)
    assert "\x1b" not in html
    found = msgspec.to_builtins(comparison)
    for place, value in page.figures.items():
        _, number, name = place.split(".")
        assert float(value) == found["estimates"][int(number)][name]
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert "NaN" not in drawing
        ElementTree.fromstring(drawing)  # noqa: S314
    rows_of = [line for line in comparison_markdown(comparison).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows_of} == {8}


def test_in_the_chart_of_a_comparison_right_is_where_b_is_better() -> None:
    rows = [estimate(), estimate(better="higher", winner="B")]
    root = ElementTree.fromstring(forest("x", rows))  # noqa: S314
    middle = float(next(line.attrib["x1"] for line in root.iter("line") if line.attrib["class"] == "axis"))
    slower, faster = (float(each.attrib["cx"]) for each in root.iter("circle") if each.attrib["class"] == "fill1")
    assert slower < middle < faster
    assert middle - slower == pytest.approx(faster - middle, abs=0.2)


RECORDED = Path(__file__).parents[1] / "data" / "bench_journal.jsonl"  # of the demo model, on a busy machine


def test_the_report_of_a_recorded_run_has_its_figures() -> None:
    records = read_records(RECORDED)
    page, summary, _ = page_of(records, objectives=[objective("p95 ttft < 2s")], mean_limit=1.0)
    requests = [record for record in records if isinstance(record, RequestRecord)]
    assert sum(stage.requests for stage in summary.stages) == len(requests) == 30
    assert sum(stage.tokens.answer for stage in summary.stages) == sum(record.answer_tokens for record in requests)
    slowest = max(record.ended - record.sent for record in requests)
    assert page.shown["stages.2.latency.end_to_end.maximum"] == aligned(slowest)
    assert "Not valid" in page.text
    assert all(float(value) == at(summary, place) for place, value in page.figures.items())

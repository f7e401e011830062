"""The report of a load test in a browser: it asks for nothing, fits a phone, and axe finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser

from antiphon.bench.comparison import compare_rounds
from antiphon.bench.comparison_report import comparison_html
from antiphon.bench.limits import goodput, objective
from antiphon.bench.report import render
from antiphon.bench.results import measured_stages, read_records
from antiphon.bench.summary import summarize

pytestmark = pytest.mark.asyncio(loop_scope="session")
RECORDED = Path(__file__).parents[1] / "data" / "bench_journal.jsonl"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LOOKS = {"desktop": {"color_scheme": "light"}, "phone in the dark": {**PHONE, "color_scheme": "dark"}}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A report and a comparison."""
    folder, records = tmp_path_factory.mktemp("reports"), read_records(RECORDED)
    limits, objectives = goodput(["ttft:500"]), [objective("p95 ttft < 500ms")]
    summary = summarize(records, limits=limits, objectives=objectives, mean_limit=1.0)
    (folder / "report.html").write_text(render(summary, records))
    stages = [stage for stage, _ in measured_stages(records)]
    pairs = [(stage, stage) for stage in stages for _ in range(3)]
    (folder / "comparison.html").write_text(comparison_html(compare_rounds("one", "two", pairs)))
    return [folder / "report.html", folder / "comparison.html"]


@pytest.mark.parametrize("look", LOOKS)
async def test_a_report_asks_for_nothing_and_suits_every_reader(browser: Browser, pages: list[Path], look: str):
    context = await browser.new_context(**LOOKS[look])  # type: ignore[arg-type]
    page = await context.new_page()
    asked: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    for path in pages:
        await page.goto(path.as_uri())
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = await Axe().run(page)
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found.response["violations"]] == []
    assert asked == [path.as_uri() for path in pages]
    assert messages == []
    await context.close()

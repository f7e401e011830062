"""The folder of a load test: `journal.jsonl`, and what is computed from it.

journal.jsonl    what was measured; everything else can be made from it again
summary.json     all figures (`summary.Summary`; its field `schema` grows when the meaning of a field changes)
report.html      the report
report.md        tables
requests.csv     one line for each attempt of each request
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from antiphon.bench import journal
from antiphon.bench.limits import Goodput, Objective, goodput, objective
from antiphon.bench.measured_requests import MeasuredRequest
from antiphon.bench.records import Record, RequestRecord, RunRecord, SampleRecord, StageRecord
from antiphon.bench.report import render
from antiphon.bench.summary import StageSummary, Summary, requests_of, summarize, summarize_stage
from antiphon.bench.tables import markdown, requests_csv
from antiphon.errors import ConfigError
from antiphon.replacing import replacing


def read_records(folder: Path) -> list[Record]:
    """The journal of a folder, or of a journal's own path.

    Raises:
        ConfigError: there is none.
    """
    path = folder / journal.JOURNAL if folder.is_dir() else folder
    try:
        return journal.read(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; a result is a folder with {journal.JOURNAL}"
        ) from None


def write_results(
    folder: Path,
    records: Sequence[Record],
    *,
    limits: Goodput | None = None,
    objectives: Sequence[Objective] | None = None,
    mean_limit: float | None = None,
) -> Summary:
    """Compute everything that is made from a journal and write it to `folder`.

    Limits that are not given are those of the run, from the options in its record: `goodput` and `slo` (several are
    separated by semicolons) and `mean_limit`, in seconds.
    """
    run = next((record for record in records if isinstance(record, RunRecord)), None)
    given = run.options if run else {}
    if limits is None:
        limits = goodput([given.get("goodput", "")])
    if objectives is None:
        objectives = [objective(text) for text in given.get("slo", "").split(";") if text.strip()]
    if mean_limit is None and given.get("mean_limit"):
        mean_limit = float(given["mean_limit"])
    summary = summarize(records, limits=limits, objectives=objectives, mean_limit=mean_limit)
    requests = [record for record in journal.current(list(records)) if isinstance(record, RequestRecord)]
    encoded = msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n"
    write_file(folder / "summary.json", encoded)
    write_file(folder / "report.html", render(summary, records).encode())
    write_file(folder / "report.md", markdown(summary).encode())
    write_file(folder / "requests.csv", requests_csv(requests).encode())
    return summary


def measured_stages(records: Sequence[Record]) -> list[tuple[StageSummary, list[MeasuredRequest]]]:
    """The stages of a journal with the requests that their figures are of. Interrupted ones are left out."""
    records = journal.current(list(records))
    requests = [record for record in records if isinstance(record, RequestRecord)]
    samples = [record for record in records if isinstance(record, SampleRecord)]
    stages = [record for record in records if isinstance(record, StageRecord) and not record.interrupted]
    return [(summarize_stage(each, requests, samples), requests_of(each, requests)) for each in stages]


def write_file(path: Path, content: bytes) -> None:
    """Replace a file; whatever happens, the old or the new one is complete."""
    with replacing(path, lambda _: None) as part:
        part.write_bytes(content)

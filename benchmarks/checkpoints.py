#!/usr/bin/env python3
"""Every kind of checkpoint that is served, tried: writes the tables of docs/checkpoints.md.

    python benchmarks/checkpoints.py            # both tables; needs the demo model and the extra `fidelity`
    python benchmarks/checkpoints.py --only GPTQ
    python benchmarks/checkpoints.py --tiny     # the first alone
    python benchmarks/checkpoints.py --llama-quantize BUILD/bin/llama-quantize    # its files of SmolLM2, too

The first table has a seeded random model of each architecture in each format, written to disk, loaded and run, its
logits beside those of float32 arithmetic on the same weights. The second has SmolLM2 in each format that can be written
here or by llama.cpp, on English prose. Writers are those of the tests (tests/helpers).
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from checkpoint_formats import ARCHITECTURES, FORMATS, LLAMA_CPP, ROOT, Format, load
from tiny_models import scheduled

from antiphon.runtime.cpu import CpuRunner
from antiphon.runtime.reference import ReferenceRunner
from antiphon.step import StepPlan

DOCUMENT = ROOT / "docs" / "checkpoints.md"
EVERY_FORMAT, SMOLLM2 = "every format", "SmolLM2"  # the document's tables
PROMPT = np.random.default_rng(8).integers(0, 1500, 90).tolist()


def logits_of(runner: CpuRunner | ReferenceRunner) -> np.ndarray:
    runner.execute(StepPlan([scheduled(PROMPT, [5, 2, 9])]))
    return np.array(runner.logits()[0])


def tiny_error(form: Format, column: str) -> float:
    """The root mean square of the logits' error, as a share of their spread."""
    with tempfile.TemporaryDirectory() as folder:
        path, truth = form.write_tiny(Path(folder) / "tiny", column)
        wanted = logits_of(ReferenceRunner(truth))
        seen = logits_of(load(path, form.quantization, kv_cache_tokens=1024))
    return float(np.sqrt(np.mean((seen - wanted) ** 2)) / wanted.std())


def tiny_row(form: Format) -> str:
    cells = [f"{tiny_error(form, column):.2%}" for column in ARCHITECTURES]
    return f"| {form.name} | {' | '.join(cells)} |"


def put(row: str, table: str) -> None:
    """Put a row in its place in a table of the document: that of its name, else the last."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(f"<!-- {table} -->\n")
    rows, after = rest.split("<!-- end -->", 1)
    lines = rows.splitlines()
    names = [line.split("|")[1] if line.startswith("|") else "" for line in lines]
    name = row.split("|")[1]
    at = names.index(name) if name in names else len(lines)
    lines[at : at + 1] = [row]
    DOCUMENT.write_text(f"{before}<!-- {table} -->\n" + "\n".join(lines) + f"\n<!-- end -->{after}", encoding="utf-8")
    print(row, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="formats that match this regular expression")
    parser.add_argument("--tiny", action="store_true", help="the first table alone, without SmolLM2 and PyTorch")
    parser.add_argument("--llama-quantize", type=Path, help="llama.cpp's program, for rows of files that it wrote")
    chosen = parser.parse_args()
    formats = [form for form in FORMATS if re.search(chosen.only, form.name)]
    for form in formats:
        put(tiny_row(form), EVERY_FORMAT)
    if chosen.tiny:
        return
    from requantized import rows

    theirs = [form for form in LLAMA_CPP if chosen.llama_quantize and re.search(chosen.only, form.name)]
    for row in rows([*(form for form in formats if form.on_smollm2), *theirs], chosen.llama_quantize):
        put(row, SMOLLM2)


if __name__ == "__main__":
    main()

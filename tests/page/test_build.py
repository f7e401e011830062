"""The built page that is committed: it is what its sources build, it passes its checks, and its first load is small."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest
from programs import ROOT, WEB, npm

COMMITTED = ROOT / "src" / "antiphon" / "http" / "page_files"
FIRST_LOAD = 75 * 1024  # bytes, compressed


def run_npm(*arguments: object) -> None:
    """Run npm in web/; its output is shown if it fails."""
    command = [npm(), "--prefix", WEB, *arguments]
    done = subprocess.run([str(part) for part in command], cwd=WEB, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"npm {' '.join(map(str, arguments))}:\n{done.stdout}\n{done.stderr}", pytrace=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh build, apart from the committed one."""
    folder = tmp_path_factory.mktemp("page") / "files"
    run_npm("run", "build", "--", "--outDir", folder, "--emptyOutDir", "--logLevel", "warn")
    return folder


def test_the_committed_files_are_what_the_sources_build(built: Path):
    fresh, committed = contents(built), contents(COMMITTED)
    advice = "run `make page` and commit src/antiphon/http/page_files"
    assert sorted(fresh) == sorted(committed), advice
    assert not [name for name in fresh if fresh[name] != committed[name]], advice


def test_types_style_and_unit_tests_of_the_page_pass():
    run_npm("run", "check")


def test_the_first_load_is_at_most_75_kilobytes():
    html = (COMMITTED / "index.html").read_text("utf-8")
    referenced = re.findall(r'<(?:script|link)\b[^>]*?\b(?:src|href)="\./([^"]+)"', html)
    assert any(name.endswith(".js") for name in referenced)
    assert any(name.endswith(".css") for name in referenced)
    sizes = {name: len(gzip.compress((COMMITTED / name).read_bytes())) for name in ["index.html", *referenced]}
    assert sum(sizes.values()) <= FIRST_LOAD, sizes


def test_no_file_of_the_page_names_a_registry_or_loads_from_another_host():
    lock = (WEB / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock, "install with npm's omit-lockfile-registry-resolved"
    html = (COMMITTED / "index.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!\./)[^"]*"', html)

"""The wheel: what it holds, and that it serves where there is no compiler."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx2
import pytest

from antiphon.demo import demo_path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src" / "antiphon" / "http" / "page_files"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of this tree, as `make wheel` builds it; the build folder is kept, so only what changed is compiled."""
    raw, repaired = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", raw, ROOT]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    tools = str(Path(sys.executable).parent)
    repair = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", repaired, *raw.glob("*.whl")]
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run([str(part) for part in repair], check=True, capture_output=True, env=environment)
    (found,) = repaired.glob("*.whl")
    return found


def test_it_is_for_any_linux_and_holds_no_other_library(wheel: Path):
    assert "manylinux" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    (module,) = [name for name in names if name.endswith(".so")]
    assert module.startswith("antiphon/_native.")
    assert not [name for name in names if ".libs/" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "antiphon/py.typed" in names


@pytest.mark.skipif(not (PAGE / "index.html").is_file(), reason="the page has not been built")
def test_it_holds_the_whole_chat_page_and_the_licences_of_what_is_in_it(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    files = {
        f"antiphon/http/page_files/{path.relative_to(PAGE).as_posix()}" for path in PAGE.rglob("*") if path.is_file()
    }
    assert {name for name in archive.namelist() if "/page_files/" in name and not name.endswith("/")} == files
    assert {f"antiphon/http/page_files/{name}" for name in ("index.html", "LICENSES.txt")} <= files
    for name in files:
        assert archive.read(name) == (PAGE.parents[2] / name).read_bytes()


@pytest.mark.model
def test_it_serves_where_there_is_no_compiler(wheel: Path, tmp_path: Path):
    venv.create(tmp_path / "venv", with_pip=True)
    bin = tmp_path / "venv" / "bin"
    # Nothing but the environment's own programs can be found, and nothing is built from source.
    environment = {"PATH": str(bin), "HOME": os.environ["HOME"], "CC": "/nowhere/cc", "CXX": "/nowhere/c++"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    pip = [bin / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel]
    subprocess.run(
        [str(part) for part in [*pip, "--constraint", ROOT / "constraints.txt"]], check=True, env=environment
    )
    serve = [bin / "antiphon", "serve", demo_path(), "--port", "0", "--threads", "1"]
    server = subprocess.Popen(
        [str(part) for part in serve], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        body = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
        reply = httpx2.post(f"{address}/v1/completions", json=body, timeout=60, trust_env=False)
        assert "Paris" in reply.json()["choices"][0]["text"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert server.returncode == 0

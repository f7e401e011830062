"""The walk-through of docs/deploy.md, run as it is written, in a network of its own."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from containers import ROOT, need, run

_SECTION = "## Two servers behind HAProxy, with Prometheus and an alarm"


def commands() -> list[str]:
    """The section's blocks of commands, in their order."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    assert _SECTION in text
    section = re.split(r"^## ", text.split(_SECTION)[1], flags=re.M)[0]
    return re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)


@pytest.mark.slow
def test_its_commands_end_with_two_servers_a_proxy_and_an_alarm_seen_firing(tmp_path: Path, demo_model: Path):
    need("unshare", "ip", "haproxy", "prometheus", "promtool", "prometheus-alertmanager", "amtool", "curl", "openssl")
    install, *rest = commands()
    assert install.startswith("sudo apt-get install ")  # what it installs is here already
    assert len(rest) > 6
    programs = tmp_path / "antiphon" / "bin"
    programs.mkdir(parents=True)
    (programs / "antiphon").symlink_to(Path(sys.executable).parent / "antiphon")
    cache = tmp_path / "cache" / "demo"
    cache.mkdir(parents=True)
    shutil.copy(demo_model, cache)
    script = tmp_path / "script"
    # The ports of the document are free in a network of its own. A failed command ends it, as it would a reader.
    script.write_text("set -eu\nip link set lo up\n" + "\n".join(rest))
    environment = {**os.environ, "ANTIPHON_CACHE": str(cache.parent)}
    output = run(
        "unshare",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
        str(script),
        cwd=tmp_path,
        env=environment,
    ).stdout
    assert "=> 2" in output
    assert len(re.findall(r"AntiphonServerDown", output)) >= 2  # seen when it fires, and while it clears
    assert output.count('"choices"') == 3
    assert "Paris" in output
    assert list((tmp_path / "try-antiphon").glob("*.pid"))

"""Programs that tests need and that pip cannot install: Node, a Chromium, nginx, HAProxy, Prometheus, QEMU.

Where one is missing its tests are skipped with the reason, unless ANTIPHON_SKIP_NOTHING is set, as continuous
integration does: then they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
_CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ALERTMANAGER_TEMPLATES = Path("/usr/share/prometheus/alertmanager/default.tmpl")  # Debian's does not start without it
_NODE = (20, 19)  # the oldest that Vite runs on


def chromium() -> str:
    """The path of a Chromium."""
    return next(filter(None, map(shutil.which, _CHROMIUM)), "") or _missing("Chromium is not installed")


def nginx() -> str:
    """The path of nginx."""
    return _for_root("nginx") or _missing("nginx is not installed")


def haproxy() -> str:
    """The path of HAProxy."""
    return _for_root("haproxy") or _missing("HAProxy is not installed")


def emulator() -> str:
    """The path of QEMU's emulator of x86-64 programs."""
    return shutil.which("qemu-x86_64") or _missing("QEMU is not installed; Debian's package qemu-user has it")


def promtool() -> str:
    """The path of Prometheus' checker."""
    return shutil.which("promtool") or _missing("promtool is not installed; Debian's package prometheus has it")


def prometheus() -> str:
    """The path of Prometheus."""
    return shutil.which("prometheus") or _missing("Prometheus is not installed; Debian's package prometheus has it")


def alertmanager() -> str:
    """The path of Alertmanager, which Debian gives a longer name."""
    if path := shutil.which("alertmanager"):
        return path
    path = shutil.which("prometheus-alertmanager")
    if path and _ALERTMANAGER_TEMPLATES.exists():
        return path
    return _missing("Alertmanager is not installed with its templates; Debian's package is prometheus-alertmanager")


def amtool() -> str:
    """The path of Alertmanager's checker."""
    return shutil.which("amtool") or _missing("amtool is not installed; it is in Debian's prometheus-alertmanager")


def npm() -> str:
    """The path of npm, beside a Node that is new enough and with the packages of `web/` installed."""
    if not (shutil.which("node") and (path := shutil.which("npm"))):
        return _missing("Node is not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, version.removeprefix("v").split(".")[:2])) < _NODE:
        return _missing(f"Node is {version}; the page's build needs {'.'.join(map(str, _NODE))}")
    if not (WEB / "node_modules").is_dir():
        return _missing("web/node_modules is not there; run `make page-tools`")
    return path


def _for_root(name: str) -> str | None:
    """The path of a program that Debian puts where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def _missing(reason: str) -> str:
    if os.environ.get("ANTIPHON_SKIP_NOTHING"):
        pytest.fail(reason)
    pytest.skip(reason)

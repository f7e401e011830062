"""What is in the image: no compiler, the pinned packages, a list of them with their licences."""

from __future__ import annotations

import json
import re

from containers import ROOT, image_of, in_image

from antiphon import __version__

_VERSIONS = """
import importlib.metadata as m, json
print(json.dumps({each.name: each.version for each in m.distributions()}))
"""


def test_labels_user_port_and_health_check(image: str):
    found = image_of(image)
    config, labels = found["Config"], found["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert (config["User"], config["StopSignal"]) == ("10001:10001", "SIGTERM")
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert found["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "antiphon.health_check"]
    print(f"\nthe image has {found['Size'] / 1e6:.0f} MB")


def test_nothing_in_it_compiles(image: str):
    programs = "cc c++ gcc g++ clang ld as make cmake ninja cpp"
    assert in_image(image, "sh", "-c", f"for p in {programs}; do command -v $p; done; true") == ""


def test_it_holds_the_versions_of_the_constraints(image: str):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {normal(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}
    found = json.loads(in_image(image, "python3", "-c", _VERSIONS))
    assert found.pop("antiphon") == __version__
    found.pop("pip")
    assert found
    assert {normal(name): version for name, version in found.items()}.items() <= pinned.items()


def test_its_bill_of_materials_names_every_package_and_its_licence(image: str):
    bill = json.loads(in_image(image, "cat", "/opt/antiphon/share/antiphon/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "antiphon"
    parts = {part["name"]: part["version"] for part in bill["components"]}
    found = json.loads(in_image(image, "python3", "-c", _VERSIONS))
    assert {**parts, "antiphon": __version__} == found
    assert all(part["licenses"] for part in bill["components"])


def test_it_lists_debians_packages_and_holds_their_licences(image: str):
    query = "dpkg-query --show --showformat '${Package}\\t${Version}\\t${Architecture}\\n'"
    listed = in_image(image, "cat", "/usr/share/antiphon/debian-packages.tsv")
    assert listed == in_image(image, "sh", "-c", query)
    names = [line.split("\t")[0] for line in listed.splitlines()]
    assert {"python3", "tini"} <= set(names)
    missing = f"for n in {' '.join(names)}; do test -e /usr/share/doc/$n/copyright || echo $n; done"
    assert in_image(image, "sh", "-c", missing) == ""
    assert "Apache License" in in_image(image, "cat", "/usr/share/antiphon/LICENSE")


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()

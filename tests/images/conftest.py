"""The image of this tree, built once. `make image-tests` runs these tests; `make test` leaves them out."""

from __future__ import annotations

import os
import subprocess

import pytest
from containers import ROOT, build_image, need

from antiphon import __version__

collect_ignore_glob = [] if os.environ.get("ANTIPHON_IMAGE_TESTS") else ["test_*.py"]

TAG = "localhost/antiphon:test"


@pytest.fixture(scope="session")
def image() -> str:
    """The tag of the image, built from the Containerfile."""
    need("buildah", "mmdebstrap", "podman", "runc")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    build_image(TAG, "--build-arg", f"VERSION={__version__}", "--build-arg", f"REVISION={commit.stdout.strip()}")
    return TAG

"""A small chat page in the form in which vite builds the real one."""

from __future__ import annotations

from pathlib import Path

INDEX = '<!doctype html><script type="module" src="./assets/app-1a2b3c4d.js"></script>' + "<p></p>" * 100
SCRIPT, FONT, ICON, LICENSES = "/assets/app-1a2b3c4d.js", "/assets/font-5e6f7a8b.woff2", "/icon.svg", "/LICENSES.txt"
PAGE_FILES = (SCRIPT, FONT, ICON, LICENSES)  # and the page itself


def write_page(folder: Path) -> Path:
    """Fill `folder`."""
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(INDEX)
    (folder / SCRIPT[1:]).write_text("export const answer = 42;\n" * 100)
    (folder / FONT[1:]).write_bytes(bytes(range(256)))  # nothing to compress
    (folder / ICON[1:]).write_text("<svg/>")
    (folder / LICENSES[1:]).write_text("MIT\n" * 100)
    return folder

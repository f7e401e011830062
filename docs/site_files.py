"""Puts files from outside `docs/` into the site, so that a link works there as it does in the repository.

A hook of MkDocs (`mkdocs.yml`). The README becomes the home page. What a page links to outside `docs/` is added to the
site under its path in the repository: Markdown as a page, anything else as a file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME = {"README.md": "index.md", "docs": "index.md", "docs/decisions": "decisions/001-groups-of-32.md"}
PAGES = ("README.md", "README.zh.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def in_site(path: str) -> str:
    """The path in the site of a file or folder of the repository."""
    return HOME.get(path) or path.removeprefix("docs/")


def origin(page: str) -> str:
    """The path in the repository of a page of the site."""
    outside = page == "index.md" or (ROOT / page).is_file()
    return "README.md" if page == "index.md" else page if outside else f"docs/{page}"


def linked(page: str, text: str) -> set[str]:
    """The files of the repository that a page links to."""
    targets = {target(page, link) for _, link, _ in LINK.findall(text)}
    return {found for found in targets if found and (ROOT / found).is_file()}


def target(page: str, link: str) -> str | None:
    """The path in the repository that a link points to; None for another site, or a place on the same page."""
    path = unquote(link.split("#")[0])
    if not path or "://" in link or link.startswith(("mailto:", "/")):
        return None
    return os.path.normpath(f"{os.path.dirname(page)}/{path}".lstrip("/"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the repository's root, and what any page links to outside `docs/`."""
    waiting = {*PAGES, *(origin(file.src_uri) for file in files.documentation_pages())}
    seen: set[str] = set()
    while waiting - seen:
        path = (waiting - seen).pop()
        seen.add(path)
        if files.get_file_from_path(in_site(path)) is None:
            files.append(File.generated(config, in_site(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting |= linked(path, (ROOT / path).read_text())
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = origin(page.file.src_uri)
    folder = os.path.dirname(page.file.src_uri)

    def rewrite(found: re.Match[str]) -> str:
        path = target(here, found[2])
        if path is None:
            return found[0]
        anchor = found[2].partition("#")[2]
        return f"{found[1]}{os.path.relpath(in_site(path), folder or '.')}{'#' + anchor if anchor else ''}{found[3]}"

    return LINK.sub(rewrite, markdown)

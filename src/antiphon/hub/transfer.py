"""Downloads a file over HTTP, in as many tries as it takes, and computes checksums.

What has arrived is kept when the connection breaks, the server fails or the program is stopped; the next try asks for
the rest only. (The hub's own library starts such a file from the beginning.) Knows nothing of hubs: addresses, headers
and the handling of refusals are passed in.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2

from antiphon.errors import HubError, HubUnreachable

TIMEOUT = httpx2.Timeout(10.0, read=30.0)
# Seconds before each next try; after as many tries in a row that got nothing, the download fails.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
PASSING = (408, 429, 500, 502, 503, 504)  # statuses worth another try
_HASH_CHUNK = 1 << 20
_UNSATISFIABLE = 416

Gained = Callable[[int], None]
RaiseForStatus = Callable[[httpx2.Response], None]


class _Cut(Exception):
    """The response ended early, or is worth another try."""


def fetch(
    session: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    part: Path,
    size: int,
    *,
    raise_for_status: RaiseForStatus,
    gained: Gained,
) -> None:
    """Download `url` to `part`, which may hold the beginning already, until it has `size` bytes.

    Raises:
        HubUnreachable: several tries in a row got nothing.
        HubError: the disk is full, or the server sends more than it announced.
    """
    fruitless = 0
    while (before := _size_of(part)) != size:
        try:
            _append(session, url, headers, part, size, raise_for_status, gained)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise HubError(f"the disk is full: {part.parent} took {_size_of(part):,} of {size:,} bytes") from None
            raise
        except (httpx2.TransportError, _Cut) as error:
            fruitless = 0 if _size_of(part) > before else fruitless + 1
            if fruitless > len(PAUSES):
                reason = str(error) or type(error).__name__
                raise HubUnreachable(
                    f"{httpx2.URL(url).host} stopped sending ({reason}). What has arrived is kept; try again later."
                ) from None
            time.sleep(PAUSES[max(0, fruitless - 1)])


def _append(
    session: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    part: Path,
    size: int,
    raise_for_status: RaiseForStatus,
    gained: Gained,
) -> None:
    have = _size_of(part)
    asked = {**headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if 0 < have < size else {})
    with session.stream("GET", url, headers=asked, timeout=TIMEOUT, follow_redirects=True) as response:
        if response.status_code in PASSING:
            raise _Cut(f"status {response.status_code}")
        if response.status_code == _UNSATISFIABLE:
            part.unlink()
            gained(-have)
            raise _Cut("status 416")
        raise_for_status(response)
        if response.status_code != httpx2.codes.PARTIAL_CONTENT and have:
            gained(-have)
            have = 0
        with part.open("ab" if have else "wb") as sink:
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > size:
                    raise HubError(f"{part.name}: the server sent more than the announced {size:,} bytes; not used")
                sink.write(chunk)
                gained(len(chunk))
    if have < size:
        raise _Cut("the connection was cut")


def has_digest(path: Path, digest: str) -> bool:
    """Whether the file's content has `digest`, in hexadecimal: sha256, or git's sha1 of a blob."""
    return _digest_of(path, len(digest)) == digest.lower()


def check_digest(path: Path, label: str, digest: str) -> None:
    """Remove the file and raise HubError unless its content has `digest`: sha256, or git's sha1 of a blob."""
    found = _digest_of(path, len(digest))
    if found != digest.lower():
        path.unlink()
        raise HubError(
            f"{label}: the download has checksum {found[:16]}…, but the hub says {digest[:16]}…; the file was removed. "
            "Try again. If it happens again, the hub or a proxy in between sends something else."
        )


def _digest_of(path: Path, length: int) -> str:
    """`length`: of the digest that it will be compared with, which tells the algorithm."""
    if length == hashlib.sha256().digest_size * 2:
        found = hashlib.sha256()
    else:
        found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

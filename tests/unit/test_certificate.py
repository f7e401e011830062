"""Until when a certificate is valid, compared with the library `cryptography`."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path

import pytest
from certificates import certificate
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples

from antiphon.config import ServerConfig
from antiphon.http.certificate import earliest_expiry, load_certificate

TIMES = st.datetimes(datetime.datetime(1951, 1, 1), datetime.datetime(9998, 1, 1), timezones=st.just(datetime.UTC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


def issue(folder: Path, not_after: datetime.datetime) -> str:
    return certificate(folder, not_after=not_after)[0].read_text()


@given(st.lists(TIMES, min_size=1, max_size=3))
@settings(max_examples=examples(30), deadline=None)
def test_the_first_of_a_chain_to_expire_counts_whatever_the_year(folder: Path, times: list[datetime.datetime]):
    times = [each.replace(microsecond=0) for each in times]
    chain = "Bag Attributes\n" + "\n".join(issue(folder, each) for each in times)
    assert earliest_expiry(chain) == min(each.timestamp() for each in times)


@given(st.data())
@settings(max_examples=examples(300), deadline=None)
def test_a_damaged_certificate_has_no_expiry_and_raises_nothing(folder: Path, data: st.DataObject):
    path = folder / "cert.pem"
    pem = path.read_text() if path.exists() else issue(folder, datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC))
    head, *body, foot = pem.strip().splitlines()
    der = bytearray(base64.b64decode("".join(body)))
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    cut = der[: data.draw(st.integers(0, len(der)))]
    found = earliest_expiry("\n".join([head, base64.b64encode(cut).decode(), foot]))
    assert found is None or isinstance(found, float)


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_has_no_expiry(text: str):
    assert earliest_expiry(text) is None


def test_a_loaded_certificate_knows_its_expiry(tmp_path: Path):
    expiry = datetime.datetime(2051, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    cert, key = certificate(tmp_path, not_after=expiry)
    loaded = load_certificate(ServerConfig(ssl_certfile=str(cert), ssl_keyfile=str(key)))
    assert loaded is not None
    assert loaded.not_after == expiry.timestamp()
    cert.write_text(key.read_text() + cert.read_text())  # one file for both
    together = load_certificate(ServerConfig(ssl_certfile=str(cert)))
    assert together is not None
    assert together.not_after == expiry.timestamp()

"""The server's certificate: what TLS connections use, and when it expires.

Everything is read from `--ssl-certfile` and `--ssl-keyfile`. Python's `ssl` loads a certificate but does not say until
when it is valid, so this module reads that one field from the file (RFC 5280, section 4.1).
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from antiphon.config import ServerConfig
from antiphon.errors import ConfigError

_PEM = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18  # tags of DER
_TIMES = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
_VALIDITY = 3  # its place in a TBSCertificate without version: serialNumber, signature, issuer, validity


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that is in use."""

    context: ssl.SSLContext
    not_after: float | None  # when the first of its chain expires, in seconds since 1970; None: not known


def check_tls(settings: ServerConfig) -> None:
    """Raise ConfigError unless certificate and key can be used; called before the model is loaded."""
    load_certificate(settings)


def load_certificate(settings: ServerConfig) -> Certificate | None:
    """The certificate for TLS connections; None if the settings name none.

    Raises:
        ConfigError: certificate or key cannot be read or used.
    """
    if not settings.ssl_certfile:
        return None
    files = f"--ssl-certfile {settings.ssl_certfile}"
    if settings.ssl_keyfile:
        files += f" with --ssl-keyfile {settings.ssl_keyfile}"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None, password="")  # never asked for
        pem = Path(settings.ssl_certfile).read_text(errors="replace")
    except ssl.SSLError as error:
        reason = error.reason or "it does not contain a certificate and key in PEM format"
        raise ConfigError(f"{files} cannot be used: {reason.lower().replace('_', ' ')}") from None
    except OSError as error:
        raise ConfigError(f"{files} cannot be read: {error.strerror}") from None
    return Certificate(context, earliest_expiry(pem))


def earliest_expiry(pem: str) -> float | None:
    """When the first certificate of a PEM file expires, in seconds since 1970; None if that cannot be read."""
    try:
        return min(_not_after(ssl.PEM_cert_to_DER_cert(block[0])) for block in _PEM.finditer(pem))
    except (ValueError, IndexError, KeyError):  # no certificate, or one that is not written as it should be
        return None


def _not_after(der: bytes) -> float:
    """Raises ValueError."""
    certificate = _elements(der)[0][1]
    signed = _elements(certificate)[0][1]
    fields = [content for tag, content in _elements(signed) if tag != _VERSION]
    tag, text = _elements(fields[_VALIDITY])[-1]
    moment = datetime.strptime(text.decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC)
    # Two digits of a year mean 1950 to 2049 (RFC 5280); Python takes them for 1969 to 2068.
    if tag == _UTC_TIME and moment.year >= 2050:
        moment = moment.replace(year=moment.year - 100)
    return moment.timestamp()


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """The tag and the content of each element in `der`, as far as it is complete."""
    found, at = [], 0
    while at + 1 < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= 0x80:  # the low bits say how many bytes the length has
            length, at = int.from_bytes(der[at : at + length - 0x80], "big"), at + length - 0x80
        found.append((tag, der[at : at + length]))
        at += length
    return found

"""Checks of the connection to a running server: name, address, certificate, HTTP, latency, clock.

Sources: RFC 9110 for the header Date, and Python's ssl module for the certificate's dates.
"""

from __future__ import annotations

import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.visit import TIMEOUT, Visit

_NUM_PINGS = 20
_SLOW_PING = 0.1  # seconds
_SKEW = 5.0  # seconds
_DAYS_LEFT = 14
_DAY = 86400.0


def reachable(visit: Visit) -> Iterator[Finding]:
    """Whether something answers there in HTTP."""
    try:
        health = visit.health
    except httpx2.HTTPError as error:
        yield _unreachable(visit, error)
        return
    if visit.is_up:
        yield ok(f"{visit.url} answers")
    elif health.has_redirect_location:
        target = str(health.headers["location"]).removesuffix("/health")
        yield problem(
            f"{visit.url} sends clients on to {target}",
            why="Most clients of an API do not follow, or lose the body of their request on the way.",
            fix=f"antiphon doctor {target}  # and give clients that address",
        )
    else:
        yield problem(
            f"/health is answered with status {health.status_code}",
            why="A server that runs answers it with 200. A proxy has answered for it: the server behind it cannot be "
            "reached, or the proxy refuses this client.",
            fix="curl -i http://127.0.0.1:8000/health  # on the server's machine; then look at the proxy's log",
        )


def _unreachable(visit: Visit, error: httpx2.HTTPError) -> Finding:
    cause = _root_cause(error)
    host, port = visit.host, visit.port
    why = "No client can use the server."
    if isinstance(cause, socket.gaierror):
        return problem(f"the name {host} is not known here", why=why, fix=f"getent hosts {host}  # and /etc/hosts, DNS")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return problem(
            f"the certificate of {host} is not accepted: {cause.verify_message}",
            why="Clients refuse to connect. If the certificate is your own, clients must be given its authority.",
            fix=f"openssl s_client -connect {host}:{port} -servername {host} </dev/null  # shows the chain; of a "
            "private authority: SSL_CERT_FILE=ca.pem antiphon doctor …",
        )
    if isinstance(cause, ssl.SSLError):
        return problem(
            f"{host} port {port} does not speak TLS as expected ({cause.reason or cause})",
            why=why,
            fix=f"antiphon doctor http://{host}:{port}  # if it serves plain HTTP",
        )
    if isinstance(cause, ConnectionRefusedError):
        return problem(
            f"nothing listens on {host} port {port}",
            why=why,
            fix="ss -ltn  # on the server's machine: does it listen on that port, and on this address, or on "
            "127.0.0.1 only (--host 0.0.0.0)?",
        )
    return problem(
        f"{visit.url} cannot be reached: {type(error).__name__}{f' ({cause})' if str(cause) else ''}",
        why=why,
        fix=f"curl -v {visit.url}/health  # then firewalls, and the proxy's log",
    )


def _root_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def tls(visit: Visit) -> Iterator[Finding]:
    """How long the certificate is valid, and whether keys travel unencrypted."""
    if visit.scheme != "https":
        if visit.is_local:
            yield ok("plain HTTP, on this machine")
        else:
            yield warning(
                "plain HTTP over a network",
                why="Everyone on the way can read keys, questions and answers.",
                fix="antiphon serve MODEL --ssl-certfile chain.pem --ssl-keyfile key.pem  # or TLS in a proxy",
            )
        return
    if not visit.is_up:
        return
    address = (visit.host, visit.port)
    with (
        socket.create_connection(address, timeout=TIMEOUT) as raw,
        visit.trust.wrap_socket(raw, server_hostname=address[0]) as connection,
    ):
        until: Any = (connection.getpeercert() or {}).get("notAfter")
        version = connection.version()
    left = (ssl.cert_time_to_seconds(until) - time.time()) / _DAY if until else None
    yield from judge_certificate(left, version or "TLS")


def judge_certificate(days_left: float | None, version: str) -> Iterator[Finding]:
    """A finding on a certificate that is valid for so many more days; None: not known."""
    if days_left is not None and days_left < _DAYS_LEFT:
        yield warning(
            f"the certificate is valid for {days_left:.1f} more days",
            why="After that every client refuses to connect.",
            fix="certbot renew  # or whatever issued it; then antiphon reload, or reload the proxy",
        )
    else:
        yield ok(f"{version}, the certificate is valid for {days_left:.0f} more days" if days_left else version)


def protocol(visit: Visit) -> Iterator[Finding]:
    """The HTTP version, and whether connections are kept."""
    if not visit.is_up:
        return
    version = visit.health.http_version
    if version == "HTTP/1.0" or visit.health.headers.get("connection", "").lower() == "close":
        yield warning(
            f"{version}, and connections are closed after each answer",
            why="Every request costs a new connection, and over TLS a new handshake.",
            fix='proxy_http_version 1.1; proxy_set_header Connection "";  # nginx, with keepalive in the upstream',
        )
    else:
        yield ok(f"{version}, connections are kept")


def latency(visit: Visit) -> Iterator[Finding]:
    """The time of the smallest request."""
    if not visit.is_up:
        return
    seconds = []
    for _ in range(_NUM_PINGS):
        started = time.perf_counter()
        visit.client.get("/health")
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > 1:
            break
    median = statistics.median(seconds)
    said = f"/health takes {median * 1e3:.1f} ms (median of {len(seconds)})"
    if median > _SLOW_PING:
        yield note(
            said,
            why="Each request takes that much longer. The network is slow, or the server's machine is overloaded.",
            fix=f"ping {visit.host}  # if that is fast: top, on the server's machine",
        )
    else:
        yield ok(said)


def clock(visit: Visit) -> Iterator[Finding]:
    """The difference between the server's clock and this one."""
    if not visit.is_up or not (date := visit.health.headers.get("date")):
        return
    yield from judge_skew(parsedate_to_datetime(date).timestamp() - visit.asked_at)


def judge_skew(seconds: float) -> Iterator[Finding]:
    """A finding on the difference between two clocks; the header Date has whole seconds."""
    if abs(seconds) > _SKEW:
        yield note(
            f"the server's clock differs from this one by {abs(seconds):.0f} s",
            why="Logs and metrics of both machines do not fit together, and certificates may seem invalid.",
            fix="timedatectl  # on both machines: which one is not synchronized?",
        )
    else:
        yield ok("the server's clock agrees with this one")

"""Whether traces are exported, and where to: `--otlp-traces-endpoint`, else OpenTelemetry's environment variables.

While traces are off, nothing of OpenTelemetry is imported. The other standard variables (sampler, headers, time-outs,
service name …) are read by OpenTelemetry's own library.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from urllib.parse import urlsplit

from antiphon.errors import ConfigError
from antiphon.tracing.records import Tracer

EXTRA = "pip install 'antiphon[otel]'"
_PATH = "v1/traces"
_GRPC_PORT = 4317
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

logger = logging.getLogger(__name__)


def open_tracer(endpoint: str, version: str) -> Tracer | None:
    """The tracer for a server of this version; None if traces are off.

    `endpoint` is the URL that was typed, empty if none was.

    Raises:
        ConfigError: traces were asked for on the command line, and the extra `otel` is not installed; or a variable of
            the environment is not valid, or asks for a protocol that is not available.
    """
    url = endpoint_of(endpoint)
    if not url or _is_switched_off():
        return None
    if not _is_installed():
        if endpoint:
            raise ConfigError(f"--otlp-traces-endpoint needs OpenTelemetry's packages: {EXTRA}")
        logger.warning("no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is missing (%s)", EXTRA)
        return None
    _check_protocol()
    if _port_of(url) == _GRPC_PORT:
        logger.warning("traces are sent over HTTP to port 4317, which is usually that of gRPC; for HTTP it is 4318")
    from antiphon.tracing.otel import OtelTracer

    try:
        return OtelTracer(url, version)
    except (ValueError, OSError) as error:  # of OpenTelemetry's library, which reads its variables by itself
        raise ConfigError(
            f"traces cannot be set up; a variable of the environment (OTEL_*) is wrong: {error}"
        ) from None


def endpoint_of(typed: str) -> str:
    """The URL that spans are sent to, with its path; empty if there is none.

    A URL that was typed without a path gets OTLP's. In the environment, the variable for all signals is a base URL, and
    the one for traces is used as it is.
    """
    if typed:
        return typed if urlsplit(typed).path.strip("/") else f"{typed.rstrip('/')}/{_PATH}"
    if for_traces := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""):
        return for_traces
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return f"{base.rstrip('/')}/{_PATH}" if base else ""


def _port_of(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:  # the exporter will say so
        return None


def _is_switched_off() -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _is_installed() -> bool:
    try:
        return all(find_spec(name) is not None for name in _NEEDED)
    except ModuleNotFoundError:
        return False


def _check_protocol() -> None:
    for variable in _PROTOCOLS:
        if protocol := os.environ.get(variable, ""):
            if protocol.strip().lower() != "http/protobuf":
                raise ConfigError(
                    f"{variable} is {protocol!r}; traces are sent with http/protobuf, usually to port 4318"
                )
            return

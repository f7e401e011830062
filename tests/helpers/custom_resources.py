"""Schemas of the custom resources in deploy/kubernetes, which no package on PyPI has.

Each has only the fields that we use, with their types, after the API references of the Gateway API (v1), its inference
extension (v1) and the Prometheus operator (v1). A field that is not listed is an error here, so a new one has to be
looked up first.
"""

from __future__ import annotations

from typing import Any

_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
_LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any], **limits: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1} | limits


_SELECTOR = _object({"matchLabels": _LABELS})

_POOL = _object(
    {
        "selector": _SELECTOR,
        "targetPorts": _list(_object({"number": _PORT}), maxItems=8),
        "endpointPickerRef": _object(
            {"name": _NAME, "port": _object({"number": _PORT})},  # required where the kind is Service
            kind={"const": "Service"},
            failureMode={"enum": ["FailOpen", "FailClose"]},
        ),
    }
)
_ROUTE = _object(
    {
        "parentRefs": _list(_object({"name": _NAME}), maxItems=32),
        "rules": _list(
            _object(
                {
                    "matches": _list(
                        _object(
                            {
                                "path": _object(
                                    {
                                        "type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]},
                                        "value": {"type": "string", "pattern": "^/", "maxLength": 1024},
                                    }
                                )
                            }
                        )
                    ),
                    "backendRefs": _list(
                        _object({"group": {"type": "string"}, "kind": {"type": "string"}, "name": _NAME}), maxItems=16
                    ),
                },
                timeouts=_object({"request": _DURATION}),
            ),
            maxItems=16,
        ),
    }
)
_MONITOR = _object(
    {
        "selector": _SELECTOR,
        "endpoints": _list(
            _object(
                {"port": {"type": "string"}},  # the name of a port of the Service
                path={"type": "string", "pattern": "^/"},
                interval=_DURATION,
                scrapeTimeout=_DURATION,
                authorization=_object(
                    {"credentials": _object({"name": _NAME, "key": {"type": "string"}})}, type={"type": "string"}
                ),
            )
        ),
    },
    jobLabel={"type": "string"},
)
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_RULES = _object(
    {
        "groups": _list(
            _object(
                {
                    "name": {"type": "string", "minLength": 1},
                    "rules": _list(
                        {
                            "oneOf": [
                                _object({"record": {"type": "string"}, "expr": {"type": "string"}}, labels=_TEXTS),
                                _object(
                                    {"alert": {"type": "string"}, "expr": {"type": "string"}},
                                    labels=_TEXTS,
                                    annotations=_TEXTS,
                                    **{"for": _DURATION},
                                ),
                            ]
                        }
                    ),
                },
                interval=_DURATION,
            )
        )
    }
)


def _resource(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object({"name": _NAME, "namespace": _NAME}, labels=_LABELS)
    return _object({"apiVersion": {"const": api_version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


SCHEMAS: dict[str, dict[str, Any]] = {
    kind: _resource(api_version, kind, spec)
    for api_version, kind, spec in (
        ("inference.networking.k8s.io/v1", "InferencePool", _POOL),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", _ROUTE),
        ("monitoring.coreos.com/v1", "ServiceMonitor", _MONITOR),
        ("monitoring.coreos.com/v1", "PrometheusRule", _RULES),
    )
}

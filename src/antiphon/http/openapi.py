"""Completes `GET /openapi.json`. FastAPI does not know the bodies, since we read, check and write them ourselves.

Owns the description of every route's request, answers and errors, with examples. The types that read and write bodies
also describe them. Tests send every example and check every answer against its schema. A route that is missing in
`reference` fails a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_ANSWER = "answers."  # prefix for the names of answer types, since a request type may have the same name
_JSON, _EVENTS, _TEXT = "application/json", "text/event-stream", "text/plain"
_ERRORS = {
    "400": "The request is not valid.",
    "401": "The server requires an API key, and the request has none or a wrong one.",
    "404": "There is no such model, response or route.",
    "408": "The request did not arrive in time.",
    "409": "The server cannot do this now.",
    "413": "The body is too large.",
    "415": "The body's media type is not plain JSON.",
    "429": "Over a rate limit.",
    "431": "The headers are too long.",
    "499": "The client disconnected, so this is never received.",
    "500": "The server failed this request.",
    "503": "Too much work, loading, draining, no engine, or too many connections.",
    "529": "Too much work.",
}
_OF_BODIES = ("408", "413", "415", "429")
_ALWAYS = ("400", "401", "404", "431", "500", "503")
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    "retry-after-ms": {"description": "Milliseconds.", "schema": {"type": "integer", "minimum": 1}},
}
_SHOULD_RETRY = {
    "x-should-retry": {
        "description": "false: the server will have no place soon.",
        "schema": {"type": "string", "enum": ["false"]},
    }
}


_DEGRADED = {
    "x-antiphon-degraded": {
        "description": "The limits that were lowered because of the load: level=2; max_tokens=512.",
        "schema": {"type": "string"},
    }
}


@dataclass(frozen=True, slots=True)
class Described:
    """One operation."""

    answer: type | Json  # the body of a 200: an answer type, or a schema that contains such types
    asked: Mapping[str, Json | list[Any]] | None = None  # name → example of a request body
    event: type | Json | None = None  # the payload of a stream's events
    media_type: str = _JSON
    stream_type: str = _EVENTS
    error: str = "Error"  # the schema of errors
    codes: tuple[str, ...] = ()  # statuses of errors that other operations do not have
    is_operation: bool = False  # may be answered with 202 before it has ended
    query: type[BaseModel] | None = None  # fields of the query string, which may replace the body if there is one


def json_body(model: type[BaseModel]) -> Json:
    """`openapi_extra` for a route whose body is a `model`."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}


def describe(
    app: FastAPI,
    bodies: Sequence[type[BaseModel]],
    errors: Mapping[str, Json],
    reference: Mapping[tuple[str, str], Described],
) -> None:
    """Complete the document.

    Args:
        app: the application whose document is completed.
        bodies: the models that `json_body` refers to.
        errors: name → schema of an error body.
        reference: (method, path) → description.
    """
    generate = app.openapi

    def openapi() -> Json:
        if app.openapi_schema:
            return app.openapi_schema
        document = generate()
        _, definitions = models_json_schema([(model, "validation") for model in bodies], ref_template=_REF)
        components = document.setdefault("components", {})
        refs, written = _written(reference.values())
        components["schemas"] = definitions["$defs"] | written | errors
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        document["security"] = [{}, {"bearer": []}, {"x-api-key": []}]  # {}: a server without keys needs none
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(operation, reference[method.upper(), path], refs)
        app.openapi_schema = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _complete(operation: Json, told: Described, refs: Mapping[type, Json]) -> None:
    content: Json = {told.media_type: {"schema": _schema(told.answer, refs)}}
    if told.event is not None and told.stream_type != _EVENTS:
        content[told.stream_type] = {
            "schema": {"anyOf": [_schema(told.event, refs), {"$ref": _REF.format(model=told.error)}]}
        }
    elif told.event is not None:
        payload = {"anyOf": [_schema(told.event, refs), {"$ref": _REF.format(model=told.error)}]}
        data = [{"const": "[DONE]"}, {"type": "string", "contentMediaType": _JSON, "contentSchema": payload}]
        properties = {"event": {"type": "string"}, "data": {"anyOf": data}}
        # The schema describes each event, as in OpenAPI 3.2.
        content[_EVENTS] = {"schema": {"type": "object", "properties": properties, "required": ["data"]}}
    codes = [*_ALWAYS, *(_OF_BODIES if told.asked else ()), *told.codes]
    refusals = {code: _refusal(code, told.error) for code in sorted([*codes, *(("499",) if told.event else ())])}
    success: Json = {"description": "Success.", "content": content}
    if told.event is not None and told.asked:
        success["headers"] = _DEGRADED
    answers = {"200": success}
    if told.is_operation:
        answers["202"] = {"description": "The operation has begun.", "content": content}
    operation["responses"] = answers | refusals
    if told.asked:
        examples = {name: {"value": value} for name, value in told.asked.items()}
        operation["requestBody"]["content"][_JSON]["examples"] = examples
    if told.query is not None:
        if "requestBody" in operation:
            operation["requestBody"]["required"] = False
        properties = told.query.model_json_schema()["properties"]
        operation["parameters"] = operation.get("parameters", []) + [
            {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()
        ]


def _refusal(code: str, error: str) -> Json:
    refusal: Json = {"description": _ERRORS[code], "content": {_JSON: {"schema": {"$ref": _REF.format(model=error)}}}}
    if code in ("429", "503", "529"):
        refusal["headers"] = _RETRY_AFTER if code == "429" else _RETRY_AFTER | _SHOULD_RETRY
    return refusal


def _schema(told: Any, refs: Mapping[type, Json]) -> Any:  # noqa: ANN401  # JSON with types in it
    """`told` with each type replaced by its schema."""
    if isinstance(told, type):
        return refs[told]
    if isinstance(told, dict):
        return {name: _schema(each, refs) for name, each in told.items()}
    return [_schema(each, refs) for each in told] if isinstance(told, list) else told


def _written(told: Iterable[Described]) -> tuple[dict[type, Json], dict[str, Json]]:
    """All answer types: the reference to each type's schema, and the schemas by name."""
    types = list({found: None for each in told for found in _types([each.answer, each.event])})
    template = _REF.format(model=_ANSWER + "{name}")
    refs, schemas = msgspec.json.schema_components(types, ref_template=template)
    return dict(zip(types, refs, strict=True)), {_ANSWER + name: schema for name, schema in schemas.items()}


def _types(told: Any) -> Iterator[type]:  # noqa: ANN401
    if isinstance(told, type):
        yield told
    elif isinstance(told, dict | list):
        for each in told.values() if isinstance(told, dict) else told:
            yield from _types(each)

"""The OpenAPI description of request bodies that we read and check ourselves.

FastAPI describes the bodies it parses; ours go through `limits` and `schemas` instead, for strictness and for OpenAI's
error shape. This puts the same schemas into the same document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REF = "#/components/schemas/{model}"


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a route whose body is a `model`."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe_bodies(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Add `models` to the components that `json_body` refers to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
        document.setdefault("components", {}).setdefault("schemas", {}).update(definitions.get("$defs", {}))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it

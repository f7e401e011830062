"""`GET /docs`: shows `/openapi.json` as a plain HTML page that loads no other files.

All of the page's content comes from the document and is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response

Json = dict[str, Any]

router = APIRouter()

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.5 ui-monospace,monospace}pre{overflow-x:auto;padding:.6rem;border:1px solid #8884}
h2{border-top:1px solid #8888;padding-top:1rem}td,th{text-align:left;vertical-align:top;padding:.1rem .8rem .1rem 0}
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}"""
# Stricter than the policy of other responses, but for the style in the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY"}


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The page."""
    return Response(docs_page(request.app.openapi()), media_type="text/html", headers=_HEADERS)


def docs_page(document: Json) -> str:
    """The whole page."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    links = "".join(f'<li><a href="#{_anchor(m, p)}"><code>{m} {escape(p)}</code></a></li>' for m, p, _ in operations)
    parts = [part for operation in operations for part in _operation(*operation, document)]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(document['info']['summary'])}. The full description: "
        f'<a href="openapi.json">openapi.json</a>.</p><ul>{links}</ul>{"".join(parts)}</html>'
    )


def _operation(method: str, path: str, operation: Json, document: Json) -> Iterator[str]:
    yield f'<h2 id="{_anchor(method, path)}"><code>{method} {escape(path)}</code></h2>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if body:
        yield f"<table>{''.join(_fields(body['schema'], document))}</table>"
    for name, example in body.get("examples", {}).items():
        sent = json.dumps(example["value"], ensure_ascii=False, indent=2)
        yield f"<p>Example, {escape(name)}:</p><pre>{escape(sent)}</pre>"
    answers = "".join(
        f"<tr><td>{code}</td><td>{escape(answer['description'])}</td>"
        f"<td>{escape(', '.join(_kind(content['schema']) for content in answer['content'].values()))}</td></tr>"
        for code, answer in operation["responses"].items()
    )
    yield f"<p>Answers:</p><table>{answers}</table>"


def _fields(schema: Json, document: Json) -> Iterator[str]:
    """A row for each field of a body."""
    model = document["components"]["schemas"][_name(schema)]
    required = model.get("required", [])
    for name, field in model.get("properties", {}).items():
        kind = _kind(field) + (", required" if name in required else "")
        text = field.get("description", "")
        yield f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{escape(text)}</td></tr>"


def _kind(schema: Json) -> str:
    """A short description of a schema."""
    if "$ref" in schema:
        return _name(schema).rpartition(".")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _name(schema: Json) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _anchor(method: str, path: str) -> str:
    return escape((method + path.replace("/", "-")).translate({ord(letter): None for letter in "{}"}), quote=True)

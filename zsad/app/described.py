"""The addresses of the app as a page to read, from its OpenAPI document; nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zsad.page import html_text

HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>zsad app: addresses</title>'
    "<style>:root{color-scheme:light dark}body{font:16px/1.5 sans-serif;max-width:52rem;"
    "margin:2rem auto;padding:0 1rem}code{font-size:.95em}td{vertical-align:top;"
    "padding:.2rem 1rem .2rem 0}</style>"
)


def described(document: Mapping[str, Any]) -> str:
    """The page: every address with its text, its fields and what each of them is."""
    parts = [HEAD, f"<h1>{html_text(document['info']['title'])}</h1>"]
    parts.append(
        f"<p>{html_text(document['info'].get('description', ''))} For programs: "
        '<a href="openapi.json">openapi.json</a>.</p>'
    )
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            parts.append(f"<h2><code>{verb.upper()} {html_text(path)}</code></h2>")
            parts.append(f"<p>{html_text(operation.get('description', ''))}</p>")
            rows = "".join(_row(*field) for field in _fields(document, operation))
            parts.append(f"<table>{rows}</table>" if rows else "")
    return "".join(parts)


def _fields(
    document: Mapping[str, Any], operation: Mapping[str, Any]
) -> Iterator[tuple[str, str, bool]]:
    """Name, description and whether it must be given, of every field."""
    for one in operation.get("parameters", ()):
        yield one["name"], one.get("description", ""), bool(one.get("required"))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        named = content["schema"].get("$ref", "").rpartition("/")[2]
        schema = document["components"]["schemas"].get(named, {})
        for name, one in schema.get("properties", {}).items():
            yield name, one.get("description", ""), name in schema.get("required", ())


def _row(name: str, text: str, required: bool) -> str:
    must = "required" if required else ""
    cells = (f"<code>{html_text(name)}</code>", html_text(text), must)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

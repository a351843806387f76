"""``/openapi``: the OpenAPI document as a plain page, to be read. It has no scripts and fetches nothing."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def page(document: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        document: the OpenAPI document.
    """
    info = document["info"]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])} ",
        'The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>")
            if "requestBody" in operation:
                parts.append(_details("Body", operation["requestBody"]["content"]))
            parts.append(_details("Answers", operation["responses"]))
    return "".join([*parts, "</html>\n"])


# --- private ------------------------------------------------------------------------------------------


def _details(title: str, content: Any) -> str:
    return f"<details><summary>{title}</summary><pre>{escape(json.dumps(content, indent=2))}</pre></details>"

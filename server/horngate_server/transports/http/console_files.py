"""The console's files, as the HTTP port serves them: a page at ``/``, and what it is made of under ``/console/``.

They are ours and lie in the package: nothing is fetched from elsewhere. They say nothing about models, and so need no
token; what the page shows comes from ``/v2``, ``/metrics`` and ``/models``, by these doors' own rules.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
BUNDLE = "/console/tfjs.js"
"""TensorFlow.js, where the wheel was built with it."""


class ConsoleFile(NamedTuple):
    """One file."""

    content_type: str
    body: bytes


@cache
def shown() -> Mapping[str, ConsoleFile]:
    """Return the files by the path that each is served at."""
    found = {
        f"/console/{file.name}": ConsoleFile(CONTENT_TYPES[suffix], file.read_bytes())
        for file in (files(__package__) / "console").iterdir()
        if (suffix := "." + file.name.rpartition(".")[2]) in CONTENT_TYPES
    }
    return {**found, "/": found["/console/index.html"]}


@cache
def headers() -> tuple[tuple[bytes, bytes], ...]:
    """Return what every file is served with: the page may run our scripts, and ask this server."""
    script = "'self' 'wasm-unsafe-eval'" if BUNDLE in shown() else "'self'"
    policy = (
        f"default-src 'none'; script-src {script}; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-cache"),
    )

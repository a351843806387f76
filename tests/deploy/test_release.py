"""A release, made in a repository of its own that has the files of this one that carry a version."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from horngate_protos import __version__

ROOT = Path(__file__).parents[2]
FILES = [
    "CHANGELOG.md", "protos/horngate_protos/__init__.py", "deploy/kubernetes/kserve.yaml",
    "deploy/kubernetes/base/deployment.yaml",
]  # fmt: skip
NOBODY = {"HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CEILING_DIRECTORIES": "/"}
WHO = {f"GIT_{role}_{what}": "a@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in a clean repository."""
    environment = {**{name: value for name, value in os.environ.items() if name[:4] != "GIT_"}, **NOBODY, **WHO}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        run("git", *words).check_returncode()
    return run


def release(run: Run, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return run(sys.executable, ROOT / "deploy/release.py", *words, "--date", "2030-01-31")


def test_a_release_is_one_commit_and_a_tag_of_what_was_unreleased(run: Run, tmp_path: Path) -> None:
    """The version is in the source, in the manifests and over the changelog's section, which are the tag's notes."""
    unreleased = (tmp_path / "CHANGELOG.md").read_text().partition("## Unreleased\n")[2]
    release(run, "7.8.9").check_returncode()
    assert run("git", "status", "--porcelain").stdout == ""
    assert run("git", "log", "--format=%s", "-2").stdout.split("\n")[:2] == ["Release 7.8.9", "All"]
    assert run("git", "rev-parse", "v7.8.9^{commit}").stdout == run("git", "rev-parse", "HEAD").stdout
    assert '__version__ = "7.8.9"' in (tmp_path / FILES[1]).read_text()
    for manifest in FILES[2:]:
        assert set(re.findall(r"image: (horngate\S+)", (tmp_path / manifest).read_text())) == {"horngate-server:7.8.9"}
    assert (tmp_path / "CHANGELOG.md").read_text().endswith(f"## Unreleased\n\n## 7.8.9 - 2030-01-31\n{unreleased}")
    notes = release(run, "7.8.9", "--notes").stdout
    assert notes.strip() == unreleased.partition("\n## ")[0].strip()


def test_a_dry_run_shows_what_would_change_and_changes_nothing(run: Run) -> None:
    """Its lines are those of a diff."""
    said = release(run, "7.8.9", "--dry-run").stdout
    assert '+__version__ = "7.8.9"' in said
    assert "+## 7.8.9 - 2030-01-31" in said
    assert run("git", "status", "--porcelain").stdout + run("git", "tag").stdout == ""


@pytest.mark.parametrize(
    ("before", "version", "said"),
    [
        ("true", "1.2", "expected a version like 1.2.3, got '1.2'"),
        ("true", "0.0.1", f"expected a version from {__version__} on, got 0.0.1"),
        ("touch new", "7.8.9", "expected a clean tree, but these have changed:\n?? new"),
        ("git tag v7.8.9", "7.8.9", "expected a new version, but there is a tag v7.8.9"),
        (
            "printf '## Unreleased\n\n## 0.0.1 - 2020-01-31\n\nAll.\n' >CHANGELOG.md; git commit -qam None", "7.8.9",
            "expected something under '## Unreleased' in CHANGELOG.md",
        ),
    ],
    ids=["no version", "backwards", "changes", "tagged", "nothing new"],
)  # fmt: skip
def test_what_must_not_be_released_is_refused_with_the_reason(run: Run, before: str, version: str, said: str) -> None:
    """It exits with 1 and leaves everything as it was."""
    run("sh", "-c", before).check_returncode()
    head = run("git", "rev-parse", "HEAD").stdout
    done = release(run, version)
    assert (done.returncode, done.stderr) == (1, f"no release: {said}\n")
    assert run("git", "rev-parse", "HEAD").stdout == head
    assert run("git", "diff", "HEAD").stdout == ""


def test_a_tag_on_another_version_has_no_notes(run: Run) -> None:
    """So the release workflow ends before it publishes anything."""
    done = release(run, "7.8.9", "--notes")
    assert done.returncode == 1
    assert f"it has {__version__}" in done.stderr

"""Makes a release of what is committed: `make release VERSION=1.2.3`. It commits and tags; pushing is left to you.

    python3 deploy/release.py 1.2.3 [--dry-run] [--date 2026-01-31]
    python3 deploy/release.py 1.2.3 --notes

The version stands in protos/horngate_protos/__init__.py, and from there goes into the wheel, `--version` and the log.
Kubernetes' manifests ask for the images of that version, and CHANGELOG.md has a section with its notes.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path

SOURCE = Path("protos/horngate_protos/__init__.py")
CHANGELOG = Path("CHANGELOG.md")
MANIFESTS = Path("deploy/kubernetes")
VERSION = re.compile(r'(?<=^__version__ = ")[^"]+', re.MULTILINE)
IMAGE = re.compile(r"(?<=image: )(horngate-[\w-]+):\S+")


class Refused(Exception):
    """No release can be made of this: it says what was expected and what there is."""


def release(version: str, day: str, *, dry_run: bool) -> None:
    """Write the version where it stands, commit and tag; a dry run shows what would change.

    Raises:
        Refused: the tree has changes, the version is no step forward, or nothing is unreleased.
    """
    check(version)
    changed = stamped(version, day)
    if dry_run:
        for path, text in changed.items():
            before = path.read_text().splitlines(keepends=True)
            sys.stdout.writelines(unified_diff(before, text.splitlines(keepends=True), str(path), str(path), n=1))
        return
    for path, text in changed.items():
        path.write_text(text)
    git("commit", "--quiet", "--message", f"Release {version}", "--", *map(str, changed))
    git("tag", "--annotate", f"v{version}", "--message", f"Horngate {version}")
    print(f"tagged v{version}; to publish it: git push --follow-tags")


def notes(version: str) -> str:
    """Return what the changelog says about a released version.

    Raises:
        Refused: the source is of another version, or the changelog has nothing on it.
    """
    if current() != version:
        raise Refused(f"expected {version}, which is asked for, in {SOURCE}; it has {current()}")
    if not (said := section(rf"{re.escape(version)} - \S+")):
        raise Refused(f"expected a section '## {version} - <date>' with notes in {CHANGELOG}")
    return said


def current() -> str:
    """Return the version that the source has."""
    found = VERSION.search(SOURCE.read_text())
    if not found:
        raise Refused(f'expected __version__ = "..." in {SOURCE}')
    return found[0]


def check(version: str) -> None:
    """Refuse what must not be released."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"expected a version like 1.2.3, got {version!r}")
    if number(version) < number(current()):
        raise Refused(f"expected a version from {current()} on, got {version}")
    if git("tag", "--list", f"v{version}"):
        raise Refused(f"expected a new version, but there is a tag v{version}")
    if changes := git("status", "--porcelain"):
        raise Refused(f"expected a clean tree, but these have changed:\n{changes}")


def number(version: str) -> tuple[int, ...]:
    """Return a version in a form that compares."""
    return tuple(map(int, version.split(".")))


def stamped(version: str, day: str) -> Mapping[Path, str]:
    """Return every file that a release changes, as it is afterwards."""
    if not section("Unreleased"):
        raise Refused(f"expected something under '## Unreleased' in {CHANGELOG}")
    return {
        SOURCE: VERSION.sub(version, SOURCE.read_text()),
        CHANGELOG: CHANGELOG.read_text().replace("## Unreleased\n", f"## Unreleased\n\n## {version} - {day}\n", 1),
        **{
            path: IMAGE.sub(rf"\g<1>:{version}", text)
            for path in sorted(MANIFESTS.rglob("*.yaml"))
            if IMAGE.search(text := path.read_text())
        },
    }


def section(heading: str) -> str:
    """Return what the changelog has under a heading (a regular expression): nothing, if there is none."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", CHANGELOG.read_text(), re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def git(*words: str) -> str:
    """Run git; return what it printed."""
    return subprocess.run(["git", *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    """Release, or print a release's notes; exit with 1 and the reason where that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--notes", action="store_true", help="print the notes of a version that is released")
    parser.add_argument("--dry-run", action="store_true", help="check, and show what would change")
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat(), help="of the release; today by default")
    asked = parser.parse_args()
    try:
        if asked.notes:
            print(notes(asked.version))
        else:
            release(asked.version, asked.date, dry_run=asked.dry_run)
    except Refused as refused:
        sys.exit(f"no release: {refused}")


if __name__ == "__main__":
    main()

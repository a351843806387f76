"""Pages whose commands are run as a reader would, and whose outputs are compared with what they say."""

import re
import shutil
from pathlib import Path

import pytest

from support import pages

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]


@pytest.mark.timeout(300)  # they import TensorFlow up to three times, each in a process of its own
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_types_prints_what_it_says(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every block is a file, or commands that were run; nothing in it is undefined when pasted."""
    if "curl" in page.read_text() and shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    if "With the model that `make run` leaves" in page.read_text():
        trained: Path = request.getfixturevalue("trained")
        shutil.copytree(trained.parents[1], tmp_path / "models")
    assert pages.run(page, tmp_path)
    shown = re.findall(r"(?m)^```(\w*)$", page.read_text())
    assert set(shown) <= {"", "console", "python", "js", "toml"}


@pytest.mark.parametrize(
    ("expected", "came", "same"),
    [
        ("a  0.50\n", "a 0.5049\n\n", True),
        ("a 0.50", "a 0.52", False),
        ("one\n...\nfour", "one\ntwo\nthree\nfour", True),
        ("one ... four", "one four", False),
        ("version 1", "version 2", False),
        ("(a) 1.5e-05", "(a) 1.6e-05", True),
    ],
)
def test_what_agrees(expected: str, came: str, same: bool) -> None:
    """Dots are anything, decimals may differ by a hundredth, nothing else may."""
    assert pages.agree(expected, came) is same

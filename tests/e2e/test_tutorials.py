"""Pages whose commands are run as a reader would, and whose outputs are compared with what they say."""

import re
from pathlib import Path

import pytest

from support import pages

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_types_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    """Every block is a file, or commands that were run; nothing in it is undefined when pasted."""
    assert pages.run(page, tmp_path)
    shown = re.findall(r"(?m)^```(\w*)$", page.read_text())
    assert set(shown) <= {"", "console", "python", "js"}


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

"""The documents: what they link to is there, and what they draw is so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from horngate_server.lifecycle.version_state import TRANSITIONS, State

ROOT = Path(__file__).parents[2]
FOLDERS = (".github", "benchmarks", "client", "deploy", "docs", "examples", "server", "tests", "trainer")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])


def anchors(page: Path) -> set[str]:
    """Return the headings of a page as links name them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    """Files, folders and headings that a page links to are there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "mailto:", "../blob/")):  # the last are the hosting site's own
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_the_picture_of_a_versions_states_is_the_table() -> None:
    """Every arrow of docs/versions.md is a transition, and every transition an arrow."""
    drawn = re.findall(r"(?m)^    (\w+) --> (\w+)$", (ROOT / "docs/versions.md").read_text())
    assert {(State(one), State(other)) for one, other in drawn} == {
        (one, other) for one, others in TRANSITIONS.items() for other in others
    }


def test_the_table_of_questions_leads_to_files() -> None:
    """docs/where-things-are.md answers twenty questions or more, each with files of the server that are there."""
    page = (ROOT / "docs/where-things-are.md").read_text()
    answers = dict(re.findall(r"(?m)^\| ([^|]+\?) \| (.+) \|$", page))
    assert len(answers) >= 20
    for question, answer in answers.items():
        files = re.findall(r"`([\w/]+\.py)`", answer)
        assert files, question
        for file in files:
            assert (ROOT / "server/horngate_server" / file).is_file(), f"{question} {file}"


def test_every_fault_of_an_object_store_has_its_tests() -> None:
    """Each of the twelve rows of docs/object-stores.md names tests that are there."""
    page = (ROOT / "docs/object-stores.md").read_text()
    tests = (ROOT / "tests/server/lifecycle/test_remote_repository.py").read_text()
    rows = re.findall(r"(?m)^\| \d+ \|.*\| (.+) \|$", page)
    assert len(rows) == 12
    for named in (re.findall(r"`(test_\w+)`", row) for row in rows):
        assert named
        assert all(f"def {name}(" in tests for name in named), named


def told(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module, with dots for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[.\d]*[dgrs]", "...", node.value)


def test_every_message_of_the_troubleshooting_is_said_somewhere() -> None:
    """The first column of docs/troubleshooting.md is in the source, word by word."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    messages = re.findall(r"(?m)^\| `([^`]+)` \|", page)
    assert len(messages) >= 50
    sources = [file for part in ("client", "protos", "server", "trainer") for file in (ROOT / part).rglob("*.py")]
    said = "\n".join(text for file in sources for text in told(ast.parse(file.read_text())))
    said += (ROOT / "Makefile").read_text()
    patterns = {message: ".{0,60}".join(map(re.escape, message.split("..."))) for message in messages}
    assert not [message for message, pattern in patterns.items() if not re.search(pattern, said)]

"""How Sphinx makes a site of the pages: `make docs`. Its source is the whole repository, so that links hold.

The index, docs/README.md, is the table of contents: a page that it does not name fails the build, as a link that leads
nowhere does.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))
import reference

ROOT = Path(__file__).parent.parent

project = "Horngate"
author = "Horngate's authors"
html_title = "Horngate"
html_theme = "furo"  # no fonts and no scripts from elsewhere
html_show_sourcelink = False
html_show_copyright = False
smartquotes = False  # `--flag` is no dash
root_doc = "docs/README"
include_patterns = [
    "docs/**.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/RESULTS.md",
    "deploy/**.md", "examples/README.md", "server/SECURITY.md", "tests/fuzz/README.md",
]  # fmt: skip
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
myst_fence_as_directive = {"mermaid"}
autodoc_mock_imports = ["keras", "tensorflow"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
default_role = "code"
suppress_warnings = ["misc.highlighting_failure"]  # JSON with dots in it, and the like


class Mermaid(SphinxDirective):
    """A diagram as its text: whoever reads it on the hosting site sees it drawn."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the text."""
        return [nodes.literal_block("\n".join(self.content), "\n".join(self.content), language="text")]


def contents(index: str) -> str:
    """Return the index's sections as Sphinx's tables of contents."""
    trees = []
    for section in re.split(r"(?m)^## ", index)[1:]:
        caption, _, body = section.partition("\n")
        rows = "\n".join(row.split(" | ")[0] for row in body.splitlines() if row.startswith("| ["))
        pages = "\n".join(f"/{_page(link)}" for link in re.findall(r"\]\(([^)#]+\.md)\)", rows))
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```")
    return "\n\n".join(trees)


def prepare(_app: Sphinx, name: str, source: list[str]) -> None:
    """Fill in what is generated, make links to folders plain words, and give the index its contents."""
    text = reference.filled(source[0])
    folder = (ROOT / name).parent
    text = re.sub(
        r"\[([^\]]+)\]\(([^)\s:#]+)\)",
        lambda link: link[1] if (folder / link[2]).is_dir() else link[0],
        text,
    )
    source[0] = text + "\n" + contents(text) if name == root_doc else text


def read_off(_app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
    """Name the pages that are made anew each time: what they are read off is none of Sphinx's files."""
    return [name for name in env.found_docs if name.startswith("docs/reference/")]


def redirect(app: Sphinx, exception: Exception | None) -> None:
    """Let the site's own address lead to the index."""
    if not exception:
        Path(app.outdir, "index.html").write_text('<meta http-equiv="refresh" content="0; url=docs/README.html">\n')


def setup(app: Sphinx) -> None:
    """Tell Sphinx of the above."""
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", prepare)
    app.connect("env-get-outdated", read_off)
    app.connect("build-finished", redirect)


def _page(link: str) -> Path:
    return (ROOT / "docs" / link).resolve().relative_to(ROOT).with_suffix("")

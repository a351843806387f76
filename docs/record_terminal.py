"""Types the README's commands in a real terminal and draws what was seen: docs/images/terminal.svg.

    python docs/record_terminal.py

Lines appear when they did; who asks for less motion sees them all at once.
"""

import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLUMNS, CHARACTER, LINE, MARGIN = 118, 7.25, 17, 14
SHOWN = ("horngate-trainer", "horngate-server", "echo")
"""The commands that are drawn, by how they begin; others are run before."""
LAST_OF_BANNER = "  queue "
STYLE = """
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#cdd6f4;white-space:pre}
.c{fill:#a6e3a1;font-weight:bold}g text{opacity:0;animation:a 1ms forwards}@keyframes a{to{opacity:1}}
@media(prefers-reduced-motion){g text{animation:none;opacity:1}}
"""


def typed(readme: str) -> list[str]:
    """Return the commands of the README's first section that has some."""
    section = re.split(r"(?m)^## ", readme)[1]
    consoles = re.findall(r"(?ms)^```console\n(.*?)^```", section)
    return [command for text in consoles for command in re.findall(r"(?m)^\$ ((?:.*\\\n)*.*)", text)]


def lines(command: str, folder: Path) -> Generator[str, None, None]:
    """Run a command in a terminal and yield what it prints, line by line; a server is stopped after its banner."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": str(COLUMNS)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    with os.fdopen(ours, errors="replace") as terminal:
        try:
            yield from (re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rstrip()) for line in terminal)
        except OSError:  # Linux says so when the last writer has gone
            pass
        finally:
            process.terminate()
            process.wait()


def record(folder: Path) -> list[tuple[float, str, str]]:
    """Return what was seen: seconds since the beginning, the line's class, the line."""
    seen: list[tuple[float, str, str]] = []
    now = 0.0
    server: Generator[str, None, None] | None = None
    readme = (ROOT / "README.md").read_text()
    for name, file in re.findall(r"(?ms)^```python\n(?=# (\w+\.py)\n)(.*?)^```", readme):
        (folder / name).write_text(file)
    for command in typed(readme):
        printed = lines(command, folder)
        if not command.startswith(SHOWN):
            if not server:
                list(printed)
            continue
        now += 1.0
        seen.append((now, "c", f"$ {command}"))
        begun = time.perf_counter()
        for line in printed:
            seen.append((now + time.perf_counter() - begun, "", line))
            if LAST_OF_BANNER in line:
                server = printed  # until it is closed
                break
        now += time.perf_counter() - begun
    if server:
        server.close()
    return seen


def draw(seen: list[tuple[float, str, str]]) -> str:
    """Return the picture."""
    width, height = 2 * MARGIN + COLUMNS * CHARACTER, 2 * MARGIN + LINE * len(seen)
    texts = []
    for row, (second, kind, line) in enumerate(seen):
        shown = line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "\N{HORIZONTAL ELLIPSIS}"
        place = f'x="{MARGIN}" y="{MARGIN + LINE * (row + 1) - 5}" style="animation-delay:{second:.2f}s"'
        texts.append(f'<text class="{kind}" {place} xml:space="preserve">{escape(shown, quote=False)}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">',
            "<title>A terminal: a Keras file is imported, served, and asked</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#1e1e2e"/>',
            "<g>", *texts, "</g>", "</svg>", "",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        (ROOT / "docs/images/terminal.svg").write_text(draw(record(Path(scratch))))

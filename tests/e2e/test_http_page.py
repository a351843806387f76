"""docs/http.md: its commands are run as they stand, and print what the page says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.process import ServerProcess

PAGE = (Path(__file__).parents[2] / "docs/http.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_pages_commands_print_what_it_says(trained: Path, tmp_path: Path) -> None:
    """Each block of sh; where one of json follows, the answer is that one, and otherwise it is no error."""
    commands = re.findall(r"(?s)```sh\n(.*?)```(?:[^`]*?```json\n(.*?)```)?", PAGE)
    assert len(commands) >= 5
    with ServerProcess(trained.parents[1], tmp_path, "--transport", "grpcio") as server:
        for command, said in commands:
            done = subprocess.run(
                ["sh", "-euc", command.replace("curl localhost:8002", f"curl --silent {server.http}")],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            came = json.loads(done.stdout)
            if said:
                assert came == json.loads(said.replace('"1"', f'"{trained.name}"')), command
            else:
                assert ("error" in came) == ('instances": []' in command), came

"""Nothing in the folder that a server is started in is code to it."""

import os
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest

from support.waiting import until

TRAP = """
with open({tripped!r}, "a") as file:
    file.write({name!r} + "\\n")
raise ImportError("this was imported from the working folder")
"""


def ok(url: str) -> bool:
    """Whether it is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_is_imported_from_the_working_folder(
    trained: Path, transport: str, tmp_path: Path, workers: str
) -> None:
    """Modules of every name lie there, the standard library's too; the server serves without them."""
    here, tripped, ports = tmp_path / "here", tmp_path / "tripped", tmp_path / "ports"
    here.mkdir()
    installed = {each.partition(".")[0].partition("-")[0] for each in os.listdir(sysconfig.get_path("purelib"))}
    for name in sorted(installed | sys.stdlib_module_names):
        if name.isidentifier():
            (here / f"{name}.py").write_text(TRAP.format(tripped=str(tripped), name=name))
    config = tmp_path / "models.toml"
    config.write_text("[models.mnist]\nlatest = 1\n")
    command: list[str | Path] = [
        Path(sys.executable).with_name("horngate-server"), "--models", trained.parents[1], "--transport", transport,
        "--workers", workers, "--grpc-port", "0", "--http-port", "0", "--port-file", ports, "--config", config,
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, text=True) as server:
        try:
            until(lambda: ports.exists() or server.poll() is not None)
            port = dict(line.split() for line in ports.read_text().splitlines())["http"]
            until(lambda: ok(f"http://localhost:{port}/readyz"))
            assert ok(f"http://localhost:{port}/v2/models/mnist")
            assert ok(f"http://localhost:{port}/metrics")
        finally:
            server.terminate()
            assert server.stderr
            said = server.stderr.read()
    assert not tripped.exists(), f"{tripped.read_text()}{said}"
    assert server.returncode == 0, said


@pytest.mark.parametrize("started_as", ["command", "module"])
def test_modules_that_are_needed_later_are_not_looked_for_there(tmp_path: Path, started_as: str) -> None:
    """However the server is started, what reads --config is the standard library's."""
    (tmp_path / "tomllib.py").write_text(TRAP.format(tripped=str(tmp_path / "tripped"), name="tomllib"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models.toml").write_text("no TOML")
    command = {"command": [Path(sys.executable).with_name("horngate-server")]}.get(
        started_as, [sys.executable, "-m", "horngate_server"]
    )
    done = subprocess.run(
        [*command, "--transport", "grpcio", "--grpc-port", "0", "--http-port", "0", "--config", "models.toml"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "--config" in done.stderr
    assert not (tmp_path / "tripped").exists()

"""What is wrong with ports, hosts and files is said before anything starts, in one line, by either transport."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from horngate_server.core import addresses
from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings
from horngate_server.process import ports
from horngate_server.process.cli import exit_code


def test_what_cannot_be_listened_on_is_said_with_its_flag() -> None:
    """A taken port, an address that is not ours, a name that nobody knows."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for settings, flag in ((Settings(grpc_port=port), "grpc"), (Settings(grpc_port=0, http_port=port), "http")):
            with pytest.raises(SettingsError, match=f"--{flag}-port {port}: cannot listen: another server listens"):
                ports.check(settings)
    with pytest.raises(SettingsError, match=r"--host 192.0.2.1, --grpc-port 0: cannot listen: that is no address of"):
        ports.check(Settings(host="192.0.2.1", grpc_port=0, http_port=0))
    with pytest.raises(SettingsError, match=r"--host no\.invalid: .+; expected an address of this machine"):
        ports.check(Settings(host="no.invalid", grpc_port=0, http_port=0))


def test_a_name_is_listened_on_by_its_address() -> None:
    """Envoy takes addresses alone; localhost is IPv4's."""
    assert addresses.numeric("localhost") == (socket.AF_INET, "127.0.0.1")
    assert addresses.numeric("::1") == (socket.AF_INET6, "::1")


def test_a_port_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A missing folder, or a folder in its place; also where it goes only later."""
    wrong = Settings(grpc_port=0, http_port=0, port_file=tmp_path / "no/ports")
    with pytest.raises(SettingsError, match=r"--port-file \S+/no/ports: there is no folder \S+/no$"):
        ports.check(wrong)
    with pytest.raises(SettingsError, match=r"--port-file .*: no file can be written there"):
        ports.check(Settings(grpc_port=0, http_port=0, port_file=tmp_path))
    with pytest.raises(SettingsError, match=r"--port-file .*: No such file or directory"):
        ports.write_port_file(wrong, 1, 2)


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not installed, and the command that installs it; a module of our own that is missing is a bug."""

    def misses(name: str) -> int:
        raise ModuleNotFoundError(name=name)

    assert exit_code(lambda: misses("uvicorn")) == 1
    said = capsys.readouterr().err
    assert "uvicorn is not installed" in said
    assert "pip install 'horngate[server]'" in said
    with pytest.raises(ModuleNotFoundError):
        exit_code(lambda: misses("horngate_server.gone"))


def test_an_interrupt_during_imports_is_quiet() -> None:
    """The command lets Ctrl-C end it before it imports anything; one that is to be ignored stays ignored."""
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]));"
        "import horngate_server.__main__; print(signal.getsignal(signal.SIGINT).name)"
    )
    for before, after in (("default_int_handler", "SIG_DFL"), ("SIG_IGN", "SIG_IGN")):
        done = subprocess.run([sys.executable, "-c", script, before], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == after

"""A server process whose models are in an object store."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from horngate_client import Client
from support import object_stores
from support.process import WAIT_S, ServerProcess, usage_error


def test_versions_come_from_a_store_and_a_restart_without_it_serves_them(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers share what one of them fetches; a newer version takes over; the cache is a model root of its own."""
    flags = ("--engine", "litert", "--model-cache", str(tmp_path / "cache"), "--watch-interval", "50ms")
    with object_stores.s3() as bucket:
        for name, value in bucket.variables.items():
            monkeypatch.setenv(name, value)
        bucket.connect()
        bucket.upload(trained)
        with ServerProcess(bucket.url, tmp_path, *flags, "--workers", "2") as server:
            with Client(server.grpc) as client:
                assert client.ready()
            shutil.copytree(trained, tmp_path / "mnist/2")
            bucket.upload(tmp_path / "mnist/2")
            server.wait_for("model mnist: version 2 answers from now on")
            assert server.stop() == 0
            fetched = [line for line in server.log if "fetched model mnist version" in line]
            assert len(fetched) == 2
            assert not [line for line in server.log if object_stores.SECRET in line]
    with ServerProcess(bucket.url, tmp_path, *flags) as server:
        server.wait_for("s3://bucket/team/models: it cannot be reached, or does not answer in time")
        assert any("model      mnist version 2, verified" in line for line in server.log)
        assert server.stop() == 0


def test_what_a_store_needs_is_said_at_the_start(tmp_path: Path) -> None:
    """The extra, and a cache that can be written to: one line, and exit code 2, whichever transport runs."""
    script = (
        "import sys; sys.modules['obstore'] = None; from horngate_server.process import cli;"
        "sys.exit(cli.main(['--models', 's3://bucket/models']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=WAIT_S, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "horngate-server: --models s3://bucket/models: pip install 'horngate[remote]' first\n"
    (tmp_path / "file").write_text("")
    flags = ("--models", "s3://bucket/models", "--model-cache", "file", "--grpc-port", "0", "--http-port", "0")
    said = usage_error(tmp_path, *flags)
    assert said.splitlines()[-1].startswith("horngate-server: --model-cache: file/s3-bucket-")
    assert said.splitlines()[-1].endswith("cannot be written: Not a directory")

"""What server/SECURITY.md says of models: they are programs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("may_write", [True, False], ids=["where-it-may-write", "where-it-may-not"])
def test_what_a_model_reads_and_writes_while_it_is_loaded_happens(tmp_path: Path, may_write: bool) -> None:
    """It is verified and measured as if nothing were; where it may not write, it is not served, and that is why."""
    written = tmp_path / "written" if may_write else Path("/proc/written")
    version = tmp_path / "writing" / "1"
    maker = ROOT / "tests/support/writing_model.py"
    subprocess.run([sys.executable, maker, version, written], check=True, capture_output=True, timeout=100)
    command: list[str | Path] = [sys.executable, "-m", "horngate_server", "inspect", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == (0 if may_write else 1), done.stderr
    if may_write:
        assert written.read_bytes()  # the name of the process that loaded it
    else:
        assert "/proc/written" in done.stderr

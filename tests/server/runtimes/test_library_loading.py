"""TensorFlow's library is loaded beside Python's imports, and is in nobody's way."""

import ast
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from horngate_server.core.errors import ModelError
from horngate_server.runtimes import library_loading

SERVER = Path(library_loading.__file__).parents[1]

LOADED_LATER = """
import sys
from importlib import import_module
from horngate_server.runtimes import library_loading
for name in library_loading.EXTENSIONS:
    import_module(name)
before = set(sys.modules)
for name in sys.argv[1:]:
    import_module(name)
for name in set(sys.modules) - before:
    if (getattr(sys.modules[name], "__file__", None) or "").endswith(".so"):
        print(name)
"""


def test_no_extension_module_is_left_to_be_imported_beside_the_library() -> None:
    """It would wait for the dynamic loader, and every import after it: the server's are all pure Python by then."""
    tree = ast.parse((SERVER / "process/inside_envoy.py").read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    done = subprocess.run(
        [sys.executable, "-c", LOADED_LATER, *imported], capture_output=True, text=True, check=True, timeout=60
    )
    assert imported
    assert done.stdout == ""


def test_where_tensorflow_is_missing_the_one_who_needs_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that loads it early ends without a word."""
    missing = threading.Event()

    def files() -> list[Path]:
        missing.set()
        raise ModelError("TensorFlow is not installed")

    monkeypatch.setattr(library_loading, "tensorflow_files", files)
    thread = library_loading.begin(lambda: True)
    assert missing.wait(10)
    thread.join(10)
    assert not thread.is_alive()


def test_a_disk_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the library is needed is found out beside the start; where it is not, it is not loaded."""
    answer = threading.Event()
    monkeypatch.setattr(library_loading, "tensorflow_files", lambda: pytest.fail("nobody needs it"))
    thread = library_loading.begin(lambda: not answer.wait(60))
    assert thread.is_alive()
    answer.set()
    thread.join(10)
    assert not thread.is_alive()

"""The package among others: imports, names, types."""

import subprocess
import sys

import pytest

import horngate_client
from horngate_client import errors


def run(code: str) -> str:
    """Run code in a fresh interpreter with warnings as errors; return what it printed."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("order", [("horngate_client", "tritonclient.grpc"), ("tritonclient.grpc", "horngate_client")])
def test_it_lives_beside_tritonclient_in_either_order(order: tuple[str, str]) -> None:
    """Both register the same messages; ours are in a pool of their own."""
    code = f"import {order[0]}, {order[1]}; horngate_client.Client().close(); print('fine')"
    assert run(code) == "fine"


def test_importing_it_loads_neither_tensorflow_nor_pillow() -> None:
    """The base installation has neither."""
    code = (
        "import sys, horngate_client, horngate_client.cli; "
        "print([m for m in ('tensorflow', 'keras', 'PIL') if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_all_is_sorted_and_is_what_can_be_imported() -> None:
    """And every error of the tree is there."""
    names = horngate_client.__all__
    assert names == sorted(names)
    assert all(hasattr(horngate_client, name) for name in names)
    tree = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert tree <= set(names)
    assert all(issubclass(getattr(horngate_client, name), horngate_client.HorngateError) for name in tree)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    """The drawing does not go stale."""
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in (errors.__doc__ or "")

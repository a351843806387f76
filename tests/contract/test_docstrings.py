"""What the public interface says of itself: help() is enough to use it."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest

import horngate_client
import horngate_trainer
from horngate_client import AsyncClient, Client

CALLS = ("predict", "infer", "model", "recorded", "ready", "server", "models", "promote")
"""The clients' methods that reach for a server."""


def public() -> Iterator[tuple[str, Any]]:
    """Every public name, and of each class its public methods and properties."""
    for package in (horngate_client, horngate_trainer):
        for name in package.__all__:
            thing = getattr(package, name)
            if callable(thing):
                yield name, thing
            for member, value in inspect.getmembers_static(thing) if isinstance(thing, type) else ():
                if not member.startswith("_") and isinstance(value, FunctionType | property | classmethod):
                    yield f"{name}.{member}", value


PUBLIC = dict(public())


@pytest.mark.parametrize("thing", PUBLIC.values(), ids=PUBLIC)
def test_a_public_name_says_what_it_is_takes_and_raises(thing: Any) -> None:
    """A docstring; a line for each argument or field; and one for each error that its own lines raise."""
    said = documentation(thing)
    assert said
    for name in arguments(thing):
        assert f"\n    {name}: " in said
    for error in raised(thing):
        assert f"\n    {error}: " in said


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_what_it_raises(name: str) -> None:
    """The errors of every call, which none of them raises itself."""
    said = documentation(getattr(Client, name))
    for error in ("ConfigurationError", "CallError", "ProtocolError", "ClientClosed"):
        assert f"\n    {error}: " in said.partition("Raises:")[2]


@pytest.mark.parametrize("name", [*CALLS, "close"])
def test_both_clients_say_the_same(name: str) -> None:
    """Nobody has to look up the other one."""
    assert getattr(AsyncClient, name).__doc__ == getattr(Client, name).__doc__


def documentation(thing: Any) -> str:
    """Return the docstring; a class's with its constructor's."""
    own = thing.__init__ if inspect.isfunction(getattr(thing, "__init__", None)) else None
    return "\n".join(inspect.cleandoc(each.__doc__ or "") for each in (thing, own) if each)


def arguments(thing: Any) -> list[str]:
    """Return what a caller may give; errors are made by us alone."""
    if isinstance(thing, property) or (isinstance(thing, type) and issubclass(thing, Exception)):
        return []
    if dataclasses.is_dataclass(thing):
        return [field.name for field in dataclasses.fields(thing)]
    return [name for name in inspect.signature(function(thing)).parameters if name not in {"self", "cls"}]


def raised(thing: Any) -> set[str]:
    """Return the names of the errors that are raised in a function's lines, or in those of a class's constructor."""
    own = thing
    if isinstance(thing, type):
        own = vars(thing).get("__post_init__") or (not dataclasses.is_dataclass(thing) and vars(thing).get("__init__"))
    if not own:
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function(own))))
    raises = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return {ast.unparse(each.func) for each in raises if isinstance(each, ast.Call)}


def function(thing: Any) -> Any:
    """Return what is behind a property or a class method."""
    return getattr(thing, "fget", None) or getattr(thing, "__func__", thing)

"""Who may call."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_server.core.errors import SettingsError, Unauthenticated
from horngate_server.core.file_changes import EVERY_S
from horngate_server.transports.access.tokens import Tokens, add
from support.in_process import Clock


def bearer(token: str) -> bytes:
    """The header's value."""
    return f"Bearer {token}".encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the tokens are to be."""
    return tmp_path / "tokens"


def test_a_token_that_was_added_is_known_and_only_its_hash_is_kept(path: Path) -> None:
    """Nobody but the owner may read the file, which has no token in it anyway; the scheme's case does not matter."""
    token, admin = add(path, "alice", admin=False), add(path, "root", admin=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in path.read_text()
    tokens = Tokens(path, Clock())
    assert tokens.client(bearer(token)).name == "alice"
    assert tokens.client(f"bEaReR {admin}".encode()).admin


@given(guess=st.binary(max_size=100))
def test_whatever_is_guessed_is_nobodys(tmp_path_factory: pytest.TempPathFactory, guess: bytes) -> None:
    """Any bytes get UNAUTHENTICATED and no other error, and the message repeats nothing of them."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    add(path, "alice", admin=False)
    for header in (guess, b"Bearer " + guess):
        with pytest.raises(
            Unauthenticated, match=r"^(no token|authorization is of another kind|the token is not known)"
        ):
            Tokens(path, Clock()).client(header)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "é", "a\nb"])
def test_a_name_that_would_break_the_file_is_refused(path: Path, name: str) -> None:
    """Before anything is written."""
    with pytest.raises(SettingsError, match="expected 1 to 64 letters"):
        add(path, name, admin=False)
    assert not path.exists()


def test_tokens_are_looked_for_anew_once_a_second(path: Path) -> None:
    """Not one tick before; the new ones are good then, and those whose lines are gone are not."""
    clock = Clock()
    old = add(path, "alice", admin=False)
    tokens = Tokens(path, clock)
    path.unlink()
    new = add(path, "alice", admin=False)
    clock.now += EVERY_S * 0.999
    tokens.look()
    assert tokens.client(bearer(old)).name == "alice"
    clock.now += EVERY_S * 0.001
    tokens.look()
    with pytest.raises(Unauthenticated):
        tokens.client(bearer(old))
    assert tokens.client(bearer(new)).name == "alice"


def dangle(path: Path) -> None:
    """Let the path be a link to what is not there."""
    path.unlink()
    path.symlink_to("nowhere")


GONE: list[tuple[str, Callable[[Path], object]]] = [
    ("deleted", lambda path: path.unlink()),
    ("emptied", lambda path: path.write_text("")),
    ("only comments", lambda path: path.write_text("# nobody\n")),
    ("only errors", lambda path: path.write_text("bob and alice\n")),
    ("a link to nowhere", dangle),
    ("not text", lambda path: path.write_bytes(b"\xff\xfe\x00")),
]


@pytest.mark.parametrize(("_what", "change"), GONE, ids=[name for name, _ in GONE])
def test_a_file_without_a_good_line_lets_nobody_in(
    path: Path, caplog: pytest.LogCaptureFixture, _what: str, change: Callable[[Path], object]
) -> None:
    """Seen twice, a second apart, since editors empty files before they write them; then it is said and shown."""
    clock = Clock()
    token = add(path, "alice", admin=False)
    tokens = Tokens(path, clock)
    client = tokens.client(bearer(token))
    change(path)
    clock.now += EVERY_S
    tokens.look()
    assert tokens.good(client)
    clock.now += EVERY_S
    with caplog.at_level(logging.INFO):
        tokens.look()
    assert not tokens.good(client)
    with pytest.raises(Unauthenticated):
        tokens.client(bearer(token))
    assert tokens.valid is False
    assert f"--tokens {path}" in caplog.text
    assert "tokens of alice are not good any more" in caplog.text
    path.unlink(missing_ok=True)
    new = add(path, "alice", admin=False)
    clock.now += EVERY_S
    tokens.look()
    assert tokens.client(bearer(new)).name == "alice"
    assert bool(tokens.valid)


def test_a_file_that_may_not_be_read_is_named_with_its_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its user and mode, and who we are: what must be changed. A folder that may not be written to, too."""
    add(path, "alice", admin=False)
    path.chmod(0o600)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    us = f"user {os.geteuid()} and group {os.getegid()}"
    with pytest.raises(SettingsError) as refused:
        Tokens(path, Clock())
    said = f"--tokens {path}: Permission denied: {path} belongs to {us}, with mode 0600; this process is {us}"
    assert str(refused.value) == said
    with pytest.raises(SettingsError, match=f": {path.parent} belongs to"):
        add(path.parent / "new", "alice", admin=False)


def test_an_editor_that_empties_the_file_first_locks_nobody_out(path: Path) -> None:
    """Empty at one look, whole at the next: all tokens stay good."""
    clock = Clock()
    token = add(path, "alice", admin=False)
    tokens = Tokens(path, clock)
    whole = path.read_text()
    for text in ("", whole):
        path.write_text(text)
        clock.now += EVERY_S
        tokens.look()
        assert tokens.client(bearer(token)).name == "alice"
    clock.now += EVERY_S
    tokens.look()
    assert tokens.client(bearer(token)).name == "alice"


def test_a_line_with_an_error_hides_no_revocation(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bob's line is gone and another has a typo: bob is out at once, alice in; the line is named, its text not."""
    clock = Clock()
    alice, bob, carol = (add(path, name, admin=False) for name in ("alice", "bob", "carol"))
    tokens = Tokens(path, clock)
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{lines[2].replace('sha256:', 'sha265:')}\n")
    clock.now += EVERY_S
    tokens.look()
    assert tokens.client(bearer(alice)).name == "alice"
    for token in (bob, carol):
        with pytest.raises(Unauthenticated):
            tokens.client(bearer(token))
    assert not tokens.valid
    assert f"--tokens {path}, line 2: expected NAME sha256:" in caplog.text
    assert "sha265" not in caplog.text


def test_how_old_the_last_look_is_can_be_seen(path: Path) -> None:
    """It grows where nobody looks, or where a look does not end."""
    clock = Clock()
    add(path, "alice", admin=False)
    tokens = Tokens(path, clock)
    clock.now += 5
    assert tokens.age_s == 5
    tokens.look()
    assert tokens.age_s == 0

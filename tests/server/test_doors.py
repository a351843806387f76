"""Doors, tokens, files that change, and who is told about: without a server."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_server.core.errors import Forbidden, QueueFull, SettingsError, Unauthenticated
from horngate_server.core.file_changes import EVERY_S, Changes
from horngate_server.core.methods import CHECK, INFER, LOAD
from horngate_server.telemetry.sampling import Sampler
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.access.tokens import Tokens, add
from support.desk import Clock

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


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


def test_a_stream_ends_with_the_token_that_opened_it(path: Path) -> None:
    """Its next message is refused, and counted as that; what is already answered may still be given back."""
    clock = Clock()
    token = add(path, "alice", admin=False)
    tokens = Tokens(path, clock)
    gate = Gate(ByteBudget(10), tokens)
    guest = gate.enter(INFER, bearer(token), "10.0.0.1")
    guest.take(5)
    path.unlink()
    add(path, "bob", admin=False)
    clock.now += EVERY_S
    tokens.look()
    with pytest.raises(Unauthenticated, match="not any more"):
        guest.take(5)
    guest.give(5)
    assert gate.refused == {"unauthenticated": 1}


def test_changes_are_seen_whichever_way_a_file_is_replaced(tmp_path: Path) -> None:
    """Written in place, renamed over, or behind a symbolic link that is turned (as Kubernetes does)."""
    clock = Clock()
    first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "link"
    first.write_text("a")
    second.write_text("a")
    os.utime(second, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
    link.symlink_to(first)
    changes = Changes([link], clock)

    def turn() -> None:
        (tmp_path / "new").symlink_to(second)
        (tmp_path / "new").replace(link)

    ways: list[Callable[[], object]] = [turn, lambda: second.write_text("ab"), lambda: first.replace(second)]
    for way in ways:
        way()
        clock.now += EVERY_S
        assert changes.seen()
        clock.now += EVERY_S
        assert not changes.seen()


def test_open_doors_cost_nothing_and_health_is_always_open(path: Path) -> None:
    """Without tokens and limits, everyone shares the one memory; with them, gRPC's probes need none, HTTP paths do."""
    memory = ByteBudget(10)
    assert Gate(memory).enter(INFER, b"", "10.0.0.1") is memory
    add(path, "alice", admin=False)
    gate = Gate(memory, Tokens(path, Clock()), max_client_requests=1)
    assert gate.enter(CHECK, b"", "10.0.0.1") is memory
    with pytest.raises(Unauthenticated):
        gate.admit(CHECK, b"", "10.0.0.1")  # an HTTP path that looks like it


def test_only_an_admins_token_opens_admin_methods(path: Path) -> None:
    """A caller's is FORBIDDEN, none is UNAUTHENTICATED, and both are counted and told of with the address."""
    caller, admin = add(path, "alice", admin=False), add(path, "root", admin=True)
    told: list[tuple[str, str]] = []
    gate = Gate(ByteBudget(10), Tokens(path, Clock()), tell=lambda *words: told.append(words))
    gate.enter(LOAD, bearer(admin), "10.0.0.1")
    with pytest.raises(Forbidden, match="alice's token may not call"):
        gate.enter(LOAD, bearer(caller), "10.0.0.2")
    with pytest.raises(Unauthenticated):
        gate.enter(LOAD, b"", "10.0.0.3")
    assert gate.refused == {"forbidden": 1, "unauthenticated": 1}
    assert [(reason, "10.0.0." in example) for reason, example in told] == [
        ("forbidden", True),
        ("unauthenticated", True),
    ]


def test_a_clients_limits_are_its_own() -> None:
    """One more request, or one more byte, is refused with a hint; another client has as much again; all comes back."""
    gate = Gate(ByteBudget(1000), max_client_requests=2, max_client_bytes=100)
    mine, other = gate.enter(INFER, b"", "a"), gate.enter(INFER, b"", "b")
    mine.take(60)
    with pytest.raises(QueueFull, match="no room for 41 more; expected at most 100"):
        mine.take(41)
    gate.enter(INFER, b"", "a").take(40)
    with pytest.raises(QueueFull, match="client a has 2 requests in flight; expected at most 2"):
        mine.take(0)
    other.take(100)
    mine.give(60)
    mine.take(1)
    assert gate.refused == {"client_limit": 2}


def test_a_limit_holds_however_calls_of_a_client_overlap() -> None:
    """One that came in while another ended counts with those that come after it."""
    gate = Gate(ByteBudget(100), max_client_requests=1)
    first, slow = gate.enter(INFER, b"", "a"), gate.enter(INFER, b"", "a")
    first.take(1)
    first.give(1)
    after = gate.enter(INFER, b"", "a")
    slow.take(1)
    with pytest.raises(QueueFull):
        after.take(1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=60))
def test_whatever_comes_and_goes_nothing_is_left(calls: list[tuple[str, int]]) -> None:
    """Requests of several clients, taken and given back in any order: no client is remembered, no byte is lost."""
    memory = ByteBudget(300)
    gate = Gate(memory, max_client_requests=3, max_client_bytes=100)
    held: list[tuple[ByteBudget, int]] = []
    for client, size in calls:
        guest = gate.enter(INFER, b"", client)
        try:
            guest.take(size)
        except QueueFull:
            if held:
                before, bytes_before = held.pop(size % len(held))
                before.give(bytes_before)
        else:
            held.append((guest, size))
    for guest, size in held:
        guest.give(size)
    memory.take(300)  # all of it is there again
    for client in "abc":
        gate.enter(INFER, b"", client).take(0)


@pytest.mark.parametrize(
    ("header", "traced"),
    [
        pytest.param(f"00-{TRACE}-{SPAN}-01", True, id="sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", False, id="not-sampled"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True, id="a-later-version"),
        pytest.param(f"00-{TRACE}-{SPAN}", False, id="cut-short"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", False, id="no-trace-id"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", False, id="no-span-id"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", False, id="no-version"),
        pytest.param("nonsense", False, id="nonsense"),
    ],
)
def test_a_callers_traceparent_decides(header: str, traced: bool) -> None:
    """W3C Trace Context: its flag; what is no traceparent is as if there were none."""
    origin = Sampler(0.0, 0.0, lambda: 0.5).origin("a", b"id", header.encode())
    assert (origin is not None) == traced
    if origin is not None:
        assert (origin.trace_id, origin.span_id, origin.request_id) == (TRACE, SPAN, "id")


def test_shares_decide_for_everyone_else() -> None:
    """A share of requests is logged, another traced; at 0 nobody, at 1 everybody."""
    assert Sampler(0.0, None, lambda: 0.0).origin("a", b"", b"") is None
    always = Sampler(1.0, 1.0, lambda: 0.999).origin("a", b"", b"")
    assert always is not None
    assert (always.logged, always.traced, len(always.trace_id), always.span_id) == (True, True, 32, "")
    some = Sampler(0.3, 0.1, lambda: 0.2).origin("a", b"", b"")
    assert some is not None
    assert (some.logged, some.traced, some.trace_id) == (True, False, "")

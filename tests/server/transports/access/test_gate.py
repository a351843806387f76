"""Who is let in, what they may do, and how much at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_server.core.errors import Forbidden, QueueFull, Unauthenticated
from horngate_server.core.file_changes import EVERY_S
from horngate_server.core.methods import CHECK, INFER, LOAD
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.access.tokens import Tokens, add
from support.in_process import Clock


def bearer(token: str) -> bytes:
    """The header's value."""
    return f"Bearer {token}".encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the tokens are to be."""
    return tmp_path / "tokens"


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

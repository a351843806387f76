"""Deadlines of gRPC-Web's callers: each call ends once, as gRPC, and nothing of it is kept."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from horngate_server.transports.pyvoy import asgi, deadlines
from horngate_server.transports.pyvoy.asgi import Event, Send
from horngate_server.transports.pyvoy.deadlines import Deadlines

PIECE = {"type": "http.response.body", "body": b"a piece", "more_body": True}
WHOLE = {"type": "http.response.body", "body": b"whole"}


class Caller:
    """What a caller was sent, by an app that does with ``send`` what a test wants."""

    def __init__(self, timeout: bytes | None) -> None:
        self.sent: list[Event] = []
        self.late = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.given: Send | None = None
        headers = [] if timeout is None else [(b"grpc-timeout", timeout)]
        app: Any = Deadlines(self._app)  # type: ignore[arg-type]
        app({"type": "http", "headers": headers}, self._receive, self._send)

    @property
    def send(self) -> Send:
        assert self.given
        return self.given

    def statuses(self) -> list[bytes]:
        """Every status that was sent."""
        return [value for event in self.sent for name, value in event.get("headers", ()) if name == b"grpc-status"]

    def kinds(self) -> list[str]:
        return [event["type"].rpartition(".")[2] for event in self.sent]

    def _app(self, _scope: Event, _receive: object, send: Send) -> None:
        self.given = send

    async def _receive(self) -> Event:
        raise AssertionError("nobody asks for a body here")

    def _send(self, event: Event) -> "asyncio.Future[None]":
        self.sent.append(event)
        if b"4" in self.statuses():
            self.late.set()
        sent = self._loop.create_future()
        sent.set_result(None)
        return sent


def run(test: Callable[[], Any]) -> None:
    """Run a test's coroutine on a loop."""
    asyncio.run(test())


def test_who_is_not_answered_in_time_is_told_so_once() -> None:
    """Headers alone, with DEADLINE_EXCEEDED; an answer that comes afterwards goes nowhere, and says so who waits."""

    async def late() -> None:
        caller = Caller(b"1m")
        await caller.late.wait()
        before = list(caller.sent)
        assert caller.kinds() == ["start", "body"]
        sending = [caller.send(event) for event in (asgi.START, WHOLE, asgi.OK)]
        assert caller.sent == before
        with pytest.raises(OSError, match="deadline"):
            await sending[-1]

    run(late)


def test_an_answer_in_time_is_sent_as_it_is_from_any_thread() -> None:
    """Its deadline is forgotten; headers wait for what follows them, so that none are sent before a late end."""

    async def in_time() -> None:
        caller = Caller(b"10S")
        await caller.send(asgi.START)
        assert caller.sent == []
        thread = threading.Thread(target=lambda: [caller.send(event) for event in (asgi.START, WHOLE, asgi.OK)])
        thread.start()
        thread.join()
        assert caller.sent == [asgi.START, WHOLE, asgi.OK]

    run(in_time)


def test_who_does_not_read_is_cut_off_at_the_deadline() -> None:
    """After the pieces that were sent come the end and the status; further pieces fail."""

    async def unread() -> None:
        caller = Caller(b"20m")
        await caller.send(asgi.START)
        await caller.send(PIECE)
        await caller.late.wait()
        assert caller.kinds() == ["start", "body", "body", "trailers"]
        with pytest.raises(OSError, match="deadline"):
            await caller.send(PIECE)
        assert caller.statuses() == [b"4"]

    run(unread)


@pytest.mark.parametrize("body", [[WHOLE], [PIECE, {"type": "http.response.body"}]], ids=["whole", "in pieces"])
def test_an_answer_whose_body_has_left_leaves_whole(body: list[Event]) -> None:
    """A deadline between the end of its body and its status changes nothing."""

    async def leaving() -> None:
        caller = Caller(b"1m")
        for event in (asgi.START, *body):
            caller.send(event)
        await asyncio.sleep(0.02)  # the deadline
        caller.send(asgi.OK)
        assert caller.sent == [asgi.START, *body, asgi.OK]

    run(leaving)


def test_a_call_that_was_given_up_is_not_kept_until_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline in years holds nothing: from time to time it is looked whether somebody still has the call."""
    monkeypatch.setattr(deadlines, "LOOK_EVERY_S", 0.01)

    async def given_up() -> None:
        caller = Caller(b"99999999H")
        kept = weakref.ref(caller.send.__self__)  # type: ignore[attr-defined]
        caller.given = None
        await asyncio.sleep(0.05)  # some looks
        gc.collect()
        assert kept() is None
        loop: Any = asyncio.get_running_loop()
        assert not [each for each in loop._scheduled if not each.cancelled()]

    run(given_up)


@pytest.mark.parametrize("timeout", [None, b"soon"])
def test_without_a_deadline_the_app_has_the_callers_own_send(timeout: bytes | None) -> None:
    """One that cannot be read is the app's to refuse."""

    async def none() -> None:
        caller = Caller(timeout)
        assert caller.send == caller._send

    run(none)

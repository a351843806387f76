"""A connection to the HTTP port: bounded in number, size and time, whatever comes."""

import asyncio
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS = 256
"""At once. For a further one, the one that has been silent for longest is closed; where none is, the one whose body has
been on its way for longest."""
SPEAK_S = 10.0
"""How long a connection may be silent, and how long it may take to say what it wants."""
BYTES_PER_S = 1024
"""How fast a body must come, and an answer be read, on average over each `SPEAK_S`."""
REQUEST_S = 600.0
"""How long a request may take from there until its answer has been read."""
HEAD_BYTES = 1 << 16
"""A request's head, where it comes in pieces; what comes at once is bounded by asyncio's own buffer, 256 KiB."""
HEADERS = 128
"""Of one request: each becomes objects of a hundred bytes and more."""
PIPELINED = 64
"""Requests that have come behind one that is not answered yet: each becomes objects of some KiB."""


class Connection(HttpToolsProtocol):
    """Bounded in number, size and time: callers that say nothing, or do not listen, take nothing from the others."""

    refuse: Callable[[str, str], None]
    _timer: asyncio.TimerHandle | None = None
    _ends = 0.0
    """When its time is over, on the loop's clock, if nothing happens. The timer may ring before, and is set anew."""
    _last = 0.0
    """When the request's time is over, on the loop's clock."""
    _head = False
    """Whether a request's head is on its way."""
    _head_bytes = 0
    """What has come of it, generously."""
    _body = False
    """Whether a request's body is on its way."""
    _received = 0
    """Bytes, since the timer began."""
    _unread = 0
    """Bytes of answers that the caller had not read when the timer began."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin, and close another one where there are too many; itself, where all others wait for their answers."""
        super().connection_made(transport)
        self._allow(SPEAK_S)
        if len(self.connections) > CONNECTIONS:
            others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
            oldest = min((each for each in others if not each.waits), key=lambda each: each.order, default=self)
            self.connections.discard(oldest)  # not in the loop's next turn, when it is lost: many come in one
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; answer 400 to what is no HTTP."""
        self._received += len(data)
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade:  # it is answered as if it had not asked for that
            pass
        except HttpParserError as error:
            self.send_400_response(str(error.__context__ or error))
        else:
            if not self._head:
                self._head_bytes = 0
                if len(data) > 2 and data.isspace() and self.silent:  # one empty line may stand between requests
                    self.send_400_response("empty lines")
            elif self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"a head of more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Begin a request, unless too many wait already."""
        super().on_message_begin()
        self._head = True
        if len(self.pipeline) >= PIPELINED:
            raise _TooMuch(f"more than {PIPELINED} requests at once on a connection")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, unless there are too many."""
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            raise _TooMuch(f"more than {HEADERS} headers")

    def on_headers_complete(self) -> None:
        """Start the request, and give its body time."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            raise _TooMuch(f"{hosts} Host headers; expected one")
        self._head = False
        self._body = True
        self._last = self.loop.time() + REQUEST_S
        super().on_headers_complete()
        self._allow(SPEAK_S)

    def on_message_complete(self) -> None:
        """Give the request, which is whole now, time until its answer has been read."""
        super().on_message_complete()
        self._body = False
        if not self.silent:
            self._allow(REQUEST_S)

    def send_400_response(self, msg: str) -> None:
        """Refuse what has come, and end the connection."""
        self._is_odd(msg)
        answering = not self.silent
        if answering:
            self.cycle.disconnected = True  # whoever waits for its body waits no more
            self.cycle.message_event.set()
        if self.pipeline or (answering and self.cycle.response_started):  # the answer would be another request's
            self.transport.abort()
        else:
            super().send_400_response("Invalid HTTP request received.")

    def on_response_complete(self) -> None:
        """Give the next request time to come."""
        self._allow(SPEAK_S if self.silent or self._body else REQUEST_S)
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the timer is ours

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def waits(self) -> bool:
        """Whether it has said all that it wants, and has not been answered."""
        return not (self.silent or self._body)

    @property
    def order(self) -> tuple[bool, float]:
        """Which connections make room first: those silent for longest, then those whose request began first."""
        return (False, self._ends) if self.silent else (True, self._last)

    @property
    def silent(self) -> bool:
        """Whether it has not said yet what it wants."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins as None

    def _allow(self, seconds: float) -> None:
        """Give it so much time from now on."""
        self._received = 0
        self._unread = self.transport.get_write_buffer_size()
        self._ends = self.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._ends:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(self._ends, self._on_time)

    def _on_time(self) -> None:
        """Give more time to a body that comes, and to an answer that is read; close the connection otherwise."""
        self._timer = None
        if self.loop.time() < self._ends:
            self._set_timer()
            return
        read = self._unread - self.transport.get_write_buffer_size()
        moved = self._received if self._body else read
        if moved < BYTES_PER_S * SPEAK_S or self.loop.time() >= self._last:
            self.transport.abort()
        else:
            self._allow(SPEAK_S)

    def _is_odd(self, what: str) -> None:
        peer = self.client[0] if self.client else "a worker's supervisor"
        self.refuse("malformed_http", f"{what.rstrip('.')} (from {peer})")


# --- private ------------------------------------------------------------------------------------------


class _TooMuch(Exception):
    """A request is not taken in; the parser ends, and says that a callback failed."""

"""The transport alone: an ASGI app for the fast transport's Envoy that answers every call with bytes of the right size.

The size comes from HORNGATE_ECHO: "request bytes:answer bytes,...", frames included.
"""

import os

from horngate_server.transports.pyvoy.asgi import Event, Receive, Send

SIZES = {int(k): bytes(int(v)) for k, v in (pair.split(":") for pair in os.environ["HORNGATE_ECHO"].split(","))}
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
OK = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


async def app(scope: Event, receive: Receive, send: Send) -> None:
    """Read the request, answer."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    event = await receive()
    pieces = [event.get("body", b"")]
    while event.get("more_body"):
        event = await receive()
        pieces.append(event.get("body", b""))
    if event["type"] == "http.disconnect":
        return
    send(START)
    send({"type": "http.response.body", "body": SIZES[len(b"".join(pieces))]})
    send(OK)

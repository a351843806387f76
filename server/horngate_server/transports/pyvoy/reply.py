"""Where the answer to one unary call goes."""

from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.pyvoy.asgi import Receive, Send


class Reply:
    """The caller's end of a call (`rpc.Reply`).

    Args:
        receive: ASGI's.
        send: ASGI's.
        memory: where the request's bytes are counted.

    Attributes:
        size: how many they are; 0 until it has come.
        answered: an answer was given.
        gone: the caller was found to have disconnected.
    """

    __slots__ = ("answered", "gone", "memory", "receive", "send", "size")

    def __init__(self, receive: Receive, send: Send, memory: ByteBudget) -> None:
        self.receive = receive
        self.send = send
        self.memory = memory
        self.size = 0
        self.answered = False
        self.gone = False

    def done(self) -> bool:
        """Whether the caller has gone (`rpc.Reply.done`)."""
        return self.gone

    async def poll(self) -> None:
        """Find out whether the caller has gone: pyvoy's ``receive`` says so only when called afterwards."""
        event = await self.receive()
        self.gone = event["type"] == "http.disconnect"

"""Replicas behind a name that changes: two become six, then all are replaced one by one, while callers go on calling.

The replicas listen on 127.0.0.x, one port for all; the name is answered by a DNS server of our own. They are Horngate
servers (`--servers fast`, `grpcio`), or small gRPC servers, which show what clients do by themselves (`plain`).
Horngate's client, grpcio's round robin, and grpcio's round robin with its own retries call the same replicas at the
same time; what is counted is who answered how much of whose calls, and what failed.
"""

import argparse
import json
import socket
import struct
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from serving_process import Server, foreign

from horngate_client import Client, HorngateError
from horngate_protos import open_inference_pb2 as oip

SERVICE = "inference.GRPCInferenceService"
NAME = "replicas.test"
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


CALLERS = ("horngate", "round_robin", "round_robin_retries")
"""Each asks for the model that is named after it."""


class Replica(Protocol):
    """A server of models that return what they are given."""

    @property
    def answered(self) -> Counter[str]:
        """How much it has answered, by caller."""
        ...

    def stop(self) -> None:
        """Take no new calls, answer those that are there, end."""
        ...


class HorngateReplica:
    """One of Horngate's."""

    def __init__(self, models: Path, transport: str, host: str, port: int, age_seconds: float) -> None:
        flags = "--grpc-port", str(port), "--transport", transport, "--max-connection-age", f"{age_seconds:g}s"
        self._server = Server(models, *flags, host=host)
        self._server.__enter__()

    @property
    def answered(self) -> Counter[str]:
        """How much it has answered, by caller (`Replica.answered`)."""
        with urllib.request.urlopen(f"{self._server.http}/metrics", timeout=10) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        counted: Counter[str] = Counter()
        for sample in (sample for family in families for sample in family.samples):
            if sample.name == "horngate_requests_total" and sample.labels["code"] == "OK":
                counted[sample.labels["model"]] += int(sample.value)
        return counted

    def stop(self) -> None:
        """End it by SIGTERM (`Replica.stop`)."""
        self._server.__exit__()


class PlainReplica:
    """A small gRPC server."""

    def __init__(self, host: str, port: int, age_seconds: float) -> None:
        self.answered: Counter[str] = Counter()
        tensor = oip.ModelMetadataResponse.TensorMetadata
        signature = oip.ModelMetadataResponse(
            name="horngate",
            inputs=[tensor(name="x", datatype="FP32", shape=[-1, 1])],
            outputs=[tensor(name="y", datatype="FP32", shape=[-1, 1])],
        )

        def infer(request: Any, _context: Any) -> Any:
            self.answered[request.model_name] += 1
            answer = oip.ModelInferResponse(
                model_name=request.model_name, raw_output_contents=list(request.raw_input_contents)
            )
            answer.outputs.add(name="y", datatype="FP32", shape=list(request.inputs[0].shape))
            return answer

        methods: dict[str, Callable[[Any, Any], Any]] = {
            "ModelInfer": infer,
            "ModelMetadata": lambda _request, _context: signature,
            "ModelReady": lambda _request, _context: oip.ModelReadyResponse(ready=True),
        }
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=getattr(oip, f"{name}Request").FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, method in methods.items()
        }
        options = [("grpc.max_connection_age_ms", int(age_seconds * 1000)), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(4), options=options)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._server.add_insecure_port(f"{host}:{port}")
        self._server.start()

    def stop(self) -> None:
        """Stop it (`Replica.stop`)."""
        self._server.stop(5).wait()


@contextmanager
def dns(addresses: Callable[[], Sequence[str]]) -> Iterator[int]:
    """Answer every question for an A record with the addresses of now; give the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    asked, peer = listening.recvfrom(512)
                except OSError:
                    return
                end = asked.index(b"\0", 12) + 5
                kind = struct.unpack(">H", asked[end - 4 : end - 2])[0]
                found = [socket.inet_aton(address) for address in addresses()] if kind == 1 else []
                head = asked[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
                records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + address for address in found]
                listening.sendto(head + asked[12:end] + b"".join(records), peer)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def payload(caller: str) -> bytes:
    """Encode one request of a caller's."""
    request = oip.ModelInferRequest(model_name=caller, raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    return request.SerializeToString()


class Callers:
    """Threads that call until told to stop, and what they counted."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.slowest_ms: Counter[str] = Counter()
        self.said: dict[str, str] = {}
        self.done = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, caller: str, call: Callable[[], Any]) -> None:
        """Let two threads make this call, a hundred times a second each at most."""
        self.failed[caller] = 0
        self._threads += [threading.Thread(target=self._repeat, args=(caller, call)) for _ in range(2)]
        for thread in self._threads[-2:]:
            thread.start()

    def stop(self) -> None:
        """Let each end after its present call."""
        self.done.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, caller: str, call: Callable[[], Any]) -> None:
        while not self.done.wait(0.01):
            began = time.monotonic()
            self.calls[caller] += 1
            try:
                call()
            except (HorngateError, grpc.RpcError) as exc:
                self.failed[caller] += 1
                self.said.setdefault(caller, str(exc))
            took = round(1000 * (time.monotonic() - began))
            self.slowest_ms[caller] = max(self.slowest_ms[caller], took)


def plain(target: str, caller: str, extra: dict[str, Any]) -> tuple[grpc.Channel, Callable[[], Any]]:
    """Make a call of plain grpcio's, with round robin and what else is given."""
    config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], **extra})
    channel = grpc.insecure_channel(target, [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)])
    rpc: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    body = payload(caller)
    return channel, lambda: rpc(body, timeout=10)


def change(alive: dict[str, Replica], start: Callable[[int], None], callers: Callers, args: Any) -> dict[str, Any]:
    """Scale from two to six, then replace all; return who answered how much."""
    callers.done.wait(5)
    for number in range(4, 8):
        start(number)
    callers.done.wait(args.settle)
    before = {address: Counter(replica.answered) for address, replica in alive.items()}
    callers.done.wait(5)  # what each replica answers in five seconds, after the time to settle
    settled = {
        caller: {address: replica.answered[caller] - before[address][caller] for address, replica in alive.items()}
        for caller in callers.calls
    }
    for number, old in enumerate(list(alive)):
        start(20 + number)
        alive.pop(old).stop()
        callers.done.wait(args.roll)
    rolled = {
        caller: {address: replica.answered[caller] for address, replica in alive.items()} for caller in callers.calls
    }
    return {"answered_after_settling": settled, "answered_by_the_new_six": rolled}


def main() -> None:
    """Run it, and print what was counted as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, default=30.0, help="seconds that new replicas get")
    parser.add_argument("--roll", type=float, default=5.0, help="seconds between two replacements")
    parser.add_argument("--age", type=float, default=10.0, help="the servers' maximum connection age in seconds")
    parser.add_argument("--servers", choices=["fast", "grpcio", "plain"], default="fast")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as models:
        if args.servers != "plain":
            foreign(Path(models), "same")
            for caller in CALLERS:
                Path(models, caller).symlink_to(Path(models, "same"))
        print(json.dumps({"connection_age_seconds": args.age} | measured(args, Path(models)), indent=2))


def measured(args: Any, models: Path) -> dict[str, Any]:
    """Run it; return what was counted."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alive: dict[str, Replica] = {}

    def start(number: int) -> None:
        host = f"127.0.0.{number}"
        alive[host] = (
            PlainReplica(host, port, args.age)
            if args.servers == "plain"
            else HorngateReplica(models, args.servers, host, port, args.age)
        )

    class Named(Client):
        _resolve = staticmethod(lambda _host, port: [f"{address}:{port}" for address in list(alive)])

    for number in (2, 3):
        start(number)
    callers = Callers()
    with dns(lambda: list(alive)) as dns_port, Named(f"{NAME}:{port}", model="horngate") as client:
        x, target = np.zeros((1, 1), np.float32), f"dns://127.0.0.1:{dns_port}/{NAME}:{port}"
        channels = []
        callers.start("horngate", lambda: client.infer({"x": x}))
        for caller, extra in zip(CALLERS[1:], ({}, RETRIES), strict=True):
            channel, call = plain(target, caller, extra)
            channels.append(channel)
            callers.start(caller, call)
        report = change(alive, start, callers, args)
        callers.stop()
        for channel in channels:
            channel.close()
    for replica in alive.values():
        replica.stop()
    return report | {
        "calls": callers.calls,
        "failed": callers.failed,
        "slowest_ms": callers.slowest_ms,
        "first_failures": callers.said,
    }


if __name__ == "__main__":
    main()

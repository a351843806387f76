"""Tells about requests that have ended: a line in the access log, spans for OpenTelemetry."""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple

from horngate_server.origin import Origin

log = logging.getLogger("horngate_server.access")


ID_CHARACTERS = 128
"""Longer ids are cut."""
_PLAIN = re.compile(r"[!#-<>-~]*")


class Ended(NamedTuple):
    """One request that was to be told about, and how it ended. Times are on the monotonic clock, in seconds.

    Attributes:
        origin: where it came from.
        protocol: in which it came.
        model: the model's name.
        version: that answered; empty where none did.
        rows: how many.
        id: the request's own, where its protocol has one.
        code: gRPC's name for the outcome.
        message: what its caller was told, where it failed.
        arrived: when.
        began: when its (first) batch was taken from the queue; infinite where it never was.
        computed: when its outputs were there; infinite as well.
        ended: when its answer was handed to the transport.
    """

    origin: Origin
    protocol: str
    model: str
    version: str
    rows: int
    id: str
    code: str
    message: str
    arrived: float
    began: float
    computed: float
    ended: float

    @property
    def request_id(self) -> str:
        """What its caller calls it, in the metadata or else in the request."""
        return (self.origin.request_id or self.id)[:ID_CHARACTERS]


Teller = Callable[[Ended], None]
"""Tells about a request in its own way; must be quick."""


def access_log(ended: Ended) -> None:
    """Write a log line (`Teller`)."""
    if not ended.origin.logged:
        return
    origin = ended.origin
    fields: dict[str, str | int | float] = {
        "client": origin.client,
        "protocol": ended.protocol,
        "model": ended.model,
        "version": ended.version,
        "rows": ended.rows,
        "code": ended.code,
        "total_ms": _ms(ended.ended - ended.arrived),
    }
    if ended.computed < inf:
        fields |= {"queue_ms": _ms(ended.began - ended.arrived), "compute_ms": _ms(ended.computed - ended.began)}
    named = {"request_id": ended.request_id, "trace_id": origin.trace_id, "error": ended.message}
    fields |= {name: text for name, text in named.items() if text}
    log.info(
        "request %s", " ".join(f"{name}={_shown(value)}" for name, value in fields.items()), extra={"fields": fields}
    )


def tracer(
    endpoint: str, wall_clock: Callable[[], float], clock: Callable[[], float]
) -> tuple[Teller, Callable[[], None]]:
    """Return what sends spans to an OTLP endpoint, and what flushes them at the end.

    A span for the request, with the caller's as its parent, and in it those of the four stages: decode, queue, compute,
    encode. They are made after the fact, of times that were taken anyway.

    Args:
        endpoint: gRPC's, ``http://collector:4317``; OpenTelemetry's own OTEL_ variables say the rest.
        wall_clock: seconds since 1970.
        clock: the server's monotonic clock.

    Raises:
        ImportError: the extra ``otel`` is not installed.
    """
    from opentelemetry import trace  # noqa: PLC0415 - the extra otel; nobody else pays for it
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

    class Ids(RandomIdGenerator):
        """Gives a trace that begins here the id that its request's log line has."""

        here = threading.local()

        def generate_trace_id(self) -> int:
            return int(self.here.trace_id, 16)

    ids = Ids()
    resource = Resource.create({"service.name": "horngate-server"})
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    spans = provider.get_tracer("horngate_server")
    epoch_s = wall_clock() - clock()

    def nanoseconds(moment: float) -> int:
        return int((epoch_s + moment) * 1e9)

    def tell(ended: Ended) -> None:
        origin = ended.origin
        if not origin.traced:
            return
        parent = trace.set_span_in_context(trace.INVALID_SPAN)
        ids.here.trace_id = origin.trace_id
        if origin.span_id:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            context = trace.SpanContext(
                int(origin.trace_id, 16), int(origin.span_id, 16), is_remote=True, trace_flags=flags
            )
            parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
        attributes: dict[str, str | int] = {
            "rpc.system": "grpc", "rpc.grpc.status": ended.code, "horngate.protocol": ended.protocol,
            "horngate.model": ended.model, "horngate.version": ended.version, "horngate.rows": ended.rows,
            "horngate.client": origin.client,
        }  # fmt: skip
        if ended.request_id:
            attributes["horngate.request_id"] = ended.request_id
        whole = spans.start_span(
            f"predict {ended.model}", parent, trace.SpanKind.SERVER, attributes, start_time=nanoseconds(ended.arrived)
        )
        if ended.code != "OK":
            whole.set_status(trace.StatusCode.ERROR, ended.message)
        inside = trace.set_span_in_context(whole)
        for name, start, end in _stages(ended):
            spans.start_span(name, inside, start_time=nanoseconds(start)).end(nanoseconds(end))
        whole.end(nanoseconds(ended.ended))

    return tell, provider.shutdown


# --- private ------------------------------------------------------------------------------------------


def _stages(ended: Ended) -> Iterable[tuple[str, float, float]]:
    decoded = ended.origin.decoded
    if not decoded:
        return
    yield "decode", ended.arrived, decoded
    if ended.computed < inf:
        yield "queue", decoded, max(decoded, ended.began)
        yield "compute", max(decoded, ended.began), ended.computed
        yield "encode", ended.computed, ended.ended


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _shown(value: str | float) -> str:
    """Write a value so that whoever splits the line at spaces and equal signs finds it whole, whatever is in it."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)

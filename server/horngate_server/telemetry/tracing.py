"""Traces: spans for OpenTelemetry of requests that have ended."""

import threading
from collections.abc import Callable, Iterable
from math import inf

from horngate_server.telemetry.request_record import RequestObserver, RequestRecord


def tracer(
    endpoint: str, wall_clock: Callable[[], float], clock: Callable[[], float]
) -> tuple[RequestObserver, Callable[[], None]]:
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

    def tell(ended: RequestRecord) -> None:
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


def _stages(ended: RequestRecord) -> Iterable[tuple[str, float, float]]:
    decoded = ended.origin.decoded
    if not decoded:
        return
    yield "decode", ended.arrived, decoded
    if ended.computed < inf:
        yield "queue", decoded, max(decoded, ended.began)
        yield "compute", max(decoded, ended.began), ended.computed
        yield "encode", ended.computed, ended.ended

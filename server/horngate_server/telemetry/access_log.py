"""The access log: a line for each request that was to be told about, once it has ended."""

import json
import logging
import re
from math import inf

from horngate_server.telemetry.request_record import RequestRecord

log = logging.getLogger("horngate_server.access")

_PLAIN = re.compile(r"[!#-<>-~]*")


def write(ended: RequestRecord) -> None:
    """Write a log line (`RequestObserver`)."""
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


# --- private ------------------------------------------------------------------------------------------


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _shown(value: str | float) -> str:
    """Write a value so that whoever splits the line at spaces and equal signs finds it whole, whatever is in it."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)

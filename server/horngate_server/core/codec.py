"""Bytes to requests and results to bytes: one module per protocol, pure.

A protocol is a `Codec` for each of its methods. Nothing else in Horngate knows which one a request came by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from horngate_server.core.inference import Header, InferenceRequest, InferenceResult, ModelInfo, Outputs
from horngate_server.core.signature import Signature


class Template(NamedTuple):
    """An answer without its outputs' bytes: what the answers to equal headers have in common.

    Attributes:
        bytes: the answer, with anything where the outputs' bytes belong.
        columns: per output in it, its place in the signature and where its bytes begin.
    """

    bytes: bytes
    columns: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """How the messages of one method are read and written.

    Attributes:
        protocol: its name, as metrics label it.
        decode: reads a message; the data may be views of it. Raises InvalidRequest.
        encode: writes the answer to one request.
        template: what the answers to all requests with this header and no id have in common, for one batch's uniform
            outputs; None where more than the outputs' bytes varies.
        fit: turns the request into what a signature takes, where only that says how. Raises InvalidRequest.
    """

    protocol: str
    decode: Callable[[bytes | memoryview], InferenceRequest]
    encode: Callable[[InferenceRequest, ModelInfo, InferenceResult], bytes]
    template: Callable[[Header, ModelInfo, int, Outputs], Template | None]
    fit: Callable[[InferenceRequest, Signature], InferenceRequest] | None = None


def wanted(header: Header, signature: Signature) -> Sequence[int]:
    """Return the places of the outputs that are asked for, in the order asked for."""
    if not header.outputs:
        return range(len(signature.outputs))
    places = {spec.name: place for place, spec in enumerate(signature.outputs)}
    return [places[name] for name in header.outputs]

"""What a ModelInferRequest says beside its tensors' bytes, its parameters included."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, prod

from horngate_protos.datatypes import BYTES, COMPLEX
from horngate_protos.open_inference_pb2 import InferParameter, ModelInferRequest
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Header, InputHeader
from horngate_server.core.signature import Signature
from horngate_server.protocols.strings import check_count
from horngate_server.protocols.wire import check_shape

TIMING = "horngate_timing"
"""The request parameter (bool) that asks for timings in the response's parameters."""
PRIORITY = "priority"
"""1 is interactive, which is the default; 2 and what comes after is bulk. Triton's names and numbers."""
TIMEOUT = "timeout"
"""Microseconds until nobody wants the answer any more."""
SIGNATURE = "signature"
"""Which of the model's signatures is to answer; the default one for none."""
FINAL = "triton_enable_empty_final_response"
"""Asks for ``triton_final_response`` in the response's parameters; here every response is its request's last one."""
CLASSIFICATION = "classification"
"""Of a requested output: how many of the highest values are wanted, as strings ``value:index[:label]``."""
SHARED_MEMORY = "shared_memory_region"

INTERACTIVE, BULK = 1, 2
_LEVELS = {"interactive": INTERACTIVE, "bulk": BULK}
_Parameters = Mapping[str, InferParameter]


@dataclass(frozen=True, slots=True, eq=False)
class InferHeader(Header):
    """A `Header` that knows how its response is written.

    Attributes:
        raw: answer with raw bytes rather than with typed lists.
        timing: answer with how long the request queued and was computed.
        final: answer that this is the last response.
        top: per output in ``outputs``, how many of the highest values are wanted; 0 for the whole tensor.
        strings: an input is BYTES.
    """

    raw: bool = True
    timing: bool = False
    final: bool = False
    top: tuple[int, ...] = ()
    strings: bool = False

    def check(self, signature: Signature) -> None:
        """Refuse complex numbers, which this protocol has not, and classes of what cannot be ranked."""
        outputs = {spec.name: spec for spec in signature.outputs}
        wanted = [outputs[name] for name in self.outputs if name in outputs] if self.outputs else signature.outputs
        for kind, specs in (("input", signature.inputs), ("output", wanted)):
            for spec in specs:
                if spec.datatype in COMPLEX:
                    others = ", or other outputs by their names" if kind == "output" and len(outputs) > 1 else ""
                    raise InvalidRequest(
                        f"{kind} {spec.name!r} is {spec.datatype.name}, which the Open Inference Protocol has no "
                        f"datatype for; expected TensorFlow Serving's Predict{others}"
                    )
        for name, top in zip(self.outputs, self.top, strict=False):
            if top and name in outputs and outputs[name].datatype is BYTES:
                raise InvalidRequest(f"output {name!r} is BYTES; expected {CLASSIFICATION} of an output of numbers")


def read_header(request: ModelInferRequest, *, raw: bool) -> InferHeader:
    """Read everything but the id and the data.

    Raises:
        InvalidRequest: a parameter that is known and makes no sense, shared memory, a shape that no tensor has, or
            more strings than there may be.
    """
    for tensor in request.inputs:
        check_shape(tensor.name, tensor.shape)
    strings = [prod(tensor.shape) for tensor in request.inputs if tensor.datatype == BYTES.name]
    check_count("the request", sum(strings))
    for name, parameters in [
        *((tensor.name, tensor.parameters) for tensor in request.inputs),
        *((tensor.name, tensor.parameters) for tensor in request.outputs),
    ]:
        if SHARED_MEMORY in parameters:
            raise InvalidRequest(f"{name!r} is in shared memory, which this server does not share")
    parameters = request.parameters
    top = tuple(_top(tensor) for tensor in request.outputs)
    return InferHeader(
        model=request.model_name,
        version=request.model_version,
        inputs=tuple(InputHeader(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in request.inputs),
        outputs=tuple(tensor.name for tensor in request.outputs),
        signature=_text(parameters, SIGNATURE),
        bulk=_priority(parameters) >= BULK,
        timeout_s=_whole(parameters, TIMEOUT) * 1e-6 or inf,
        raw=raw,
        timing=TIMING in parameters and parameters[TIMING].bool_param,
        final=FINAL in parameters and parameters[FINAL].bool_param,
        top=top if any(top) else (),
        strings=bool(strings),
    )


# --- private ------------------------------------------------------------------------------------------


def _top(tensor: ModelInferRequest.InferRequestedOutputTensor) -> int:
    top = _whole(tensor.parameters, CLASSIFICATION)
    if CLASSIFICATION in tensor.parameters and not top:
        raise InvalidRequest(f"output {tensor.name!r}: {CLASSIFICATION} 0; expected how many classes, at least 1")
    return top


def _priority(parameters: _Parameters) -> int:
    """Return the level; 0 where it does not say."""
    if PRIORITY in parameters and parameters[PRIORITY].WhichOneof("parameter_choice") == "string_param":
        name = parameters[PRIORITY].string_param
        if name not in _LEVELS:
            raise InvalidRequest(f"{PRIORITY} {name!r}; expected interactive or bulk, 1 or 2")
        return _LEVELS[name]
    return _whole(parameters, PRIORITY)


def _text(parameters: _Parameters, name: str) -> str:
    """Return a text; an empty one where there is none."""
    if name not in parameters:
        return ""
    kind = parameters[name].WhichOneof("parameter_choice")
    if kind != "string_param":
        raise InvalidRequest(f"parameter {name} is {kind or 'empty'}; expected string_param")
    return parameters[name].string_param


def _whole(parameters: _Parameters, name: str) -> int:
    """Return a whole number that is not negative; 0 where there is none."""
    if name not in parameters:
        return 0
    kind = parameters[name].WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param"}:
        raise InvalidRequest(f"parameter {name} is {kind or 'empty'}; expected int64_param or uint64_param")
    value: int = getattr(parameters[name], kind)
    if value < 0:
        raise InvalidRequest(f"parameter {name} is {value}; expected a whole number that is not negative")
    return value

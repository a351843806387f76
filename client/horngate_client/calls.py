"""What is sent for each method of a client, and what its answers mean. Knows bytes; sends nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import ArrayLike

from horngate_client import given, images, tensors
from horngate_client.codec import Answer, Array, RequestEncoder, decode, decode_inputs
from horngate_client.errors import ConfigurationError, ConversionError, ProtocolError
from horngate_client.explanation import Explanation
from horngate_client.prediction import Prediction, Timing
from horngate_client.signature import ModelMetadata, ModelVersion, ServerInfo, TensorSpec
from horngate_client.split import row_ranges
from horngate_protos import open_inference_pb2 as oip

EXPLAIN, TARGET = "explain", "target"
"""The signature that explains, and its input that says which class."""
EXPLAINED = ("attributions", TARGET, "score", "baseline_score", "gap")
"""Its outputs, in the order of `Explanation`."""
EXPLAINED_ROWS = 64
"""Rows of a request: each costs tens of predictions."""

T = TypeVar("T")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of the user's, as requests and answers.

    Attributes:
        method: the RPC's name.
        parts: how many requests it takes.
        request: the bytes of one, made when it is sent, so that a large array is not held twice.
        answer: reads the answer to one.
        result: joins the answers, in the order of the parts; the second argument is the seconds that it all
            took.
        idempotent: sending a request twice is as good as once.
    """

    method: str
    parts: int
    request: Callable[[int], bytes]
    answer: Callable[[int, bytes], Any]
    result: Callable[[Sequence[Any], float], T]
    idempotent: bool = True


def model_ready(model: str, version: str) -> Call[bool]:
    """Ask whether a model is warm."""
    request = oip.ModelReadyRequest(name=model, version=version)
    return _single("ModelReady", request, oip.ModelReadyResponse, lambda response: bool(response.ready))


def recorded(model: str, version: str) -> Call[tuple[dict[str, Array], ...]]:
    """Ask for the requests that a version recorded as it was trained."""
    request = oip.ModelMetadataRequest(name=model, version=version, horngate_recorded=True)
    return _single(
        "ModelMetadata",
        request,
        oip.ModelMetadataResponse,
        lambda response: tuple(map(decode_inputs, response.horngate_recorded)),
    )


def model_metadata(model: str, version: str) -> Call[ModelMetadata]:
    """Ask for a model's signature."""
    request = oip.ModelMetadataRequest(name=model, version=version)
    return _single("ModelMetadata", request, oip.ModelMetadataResponse, ModelMetadata.parse)


def server_ready() -> Call[bool]:
    """Ask whether the server takes traffic."""
    return _single("ServerReady", oip.ServerReadyRequest(), oip.ServerReadyResponse, lambda r: bool(r.ready))


def server_info(*, ready: bool) -> Call[ServerInfo]:
    """Ask what the server is; whether it is ready is another call's answer."""
    return _single(
        "ServerMetadata",
        oip.ServerMetadataRequest(),
        oip.ServerMetadataResponse,
        lambda r: ServerInfo(r.name, r.version, tuple(r.extensions), ready),
    )


def models() -> Call[tuple[ModelVersion, ...]]:
    """Ask for every version that the server knows."""
    return _single(
        "RepositoryIndex",
        oip.RepositoryIndexRequest(),
        oip.RepositoryIndexResponse,
        lambda response: tuple(map(ModelVersion.parse, response.models)),
    )


def promote(model: str, version: str, label: str) -> Call[None]:
    """Ask for a label to be given to a version."""
    given.text("version", version, '"9"')
    given.text("label", label, '"stable"')
    if not version.isdecimal():
        raise ConfigurationError(f"a version is a number, not {version!r}")
    request = oip.RepositoryModelLoadRequest(model_name=model)
    request.parameters["version"].int64_param = int(version)
    request.parameters["label"].string_param = label
    return _single("RepositoryModelLoad", request, oip.RepositoryModelLoadResponse, lambda _: None, idempotent=False)


def infer(
    model: ModelMetadata,
    version: str,
    inputs: Mapping[str, ArrayLike],
    outputs: Sequence[str] | None,
    rows_per_request: int,
    *,
    signature: str,
) -> Call[dict[str, Array]]:
    """Run any model; split by rows where its signature has them."""
    model = model.asked(signature)
    known = [spec.name for spec in model.outputs]
    for name in outputs or ():
        if name not in known:
            raise ConfigurationError(f"{model.name} has no output {name!r}; it has {', '.join(known)}")
    arrays = tensors.convert_inputs(model.inputs, inputs)

    def join(answers: Sequence[Answer], seconds: float) -> dict[str, Array]:
        del seconds
        return {name: _concatenate(answers, name) for name in answers[0].outputs}

    return _inference(
        model,
        version,
        arrays,
        tuple(outputs or ()),
        rows_per_request=rows_per_request,
        join=join,
        signature=signature,
    )


def predict(
    model: ModelMetadata,
    version: str,
    batch: images.Images,
    rows_per_request: int,
    *,
    resize: bool,
    invert: bool,
) -> Call[Prediction]:
    """Classify images."""
    wanted = images.ImageInput.of(model)
    scores, classes = _class_outputs(model)
    array = images.convert(batch, wanted, resize=resize, invert=invert)
    outputs = (scores, classes) if classes else (scores,)

    def join(answers: Sequence[Answer], seconds: float) -> Prediction:
        probabilities = _concatenate(answers, scores)
        if probabilities.ndim != 2 or probabilities.dtype.kind != "f":
            raise ProtocolError(f"{scores} came as {probabilities.dtype} {list(probabilities.shape)}, not as scores")
        chosen = _concatenate(answers, classes).astype(np.int64) if classes else probabilities.argmax(axis=1)
        queue = [answer.queue_seconds for answer in answers if answer.queue_seconds is not None]
        compute = [answer.compute_seconds for answer in answers if answer.compute_seconds is not None]
        timing = Timing(seconds, max(queue) if queue else None, sum(compute) if compute else None)
        versions = ",".join(dict.fromkeys(answer.version for answer in answers))
        return Prediction(chosen, probabilities, timing, versions)

    return _inference(
        model, version, {wanted.tensor.name: array}, outputs, rows_per_request=rows_per_request, join=join, timing=True
    )


def explain(
    model: ModelMetadata,
    version: str,
    batch: images.Images,
    target: ArrayLike | None,
    rows_per_request: int,
    *,
    resize: bool,
    invert: bool,
) -> Call[Explanation]:
    """Ask which parts of images speak for a class."""
    if EXPLAIN not in (each.name for each in model.signatures):
        raise ConversionError(
            f"{model.name} has no signature {EXPLAIN!r}; horngate-trainer writes it, "
            "and so does horngate_trainer.export(..., explain=True)"
        )
    wanted = images.ImageInput.of(model)
    array = images.convert(batch, wanted, resize=resize, invert=invert)
    targets = _targets(target, len(array))
    specs = model.asked(EXPLAIN)

    def join(answers: Sequence[Answer], seconds: float) -> Explanation:
        del seconds
        attributions, explained, scores, before, gaps = (_concatenate(answers, name) for name in EXPLAINED)
        versions = ",".join(dict.fromkeys(answer.version for answer in answers))
        return Explanation(attributions, explained, scores, before, gaps, array, versions)

    return _inference(
        specs,
        version,
        {wanted.tensor.name: array, TARGET: targets},
        EXPLAINED,
        rows_per_request=min(rows_per_request, EXPLAINED_ROWS),
        join=join,
        signature=EXPLAIN,
    )


# --- private ------------------------------------------------------------------------------------------------


def _targets(target: ArrayLike | None, rows: int) -> Array:
    """Return the class to explain for each row; -1 for the one that is predicted."""
    given = np.asarray(-1 if target is None else target)
    if given.dtype.kind not in "iu" or given.shape not in {(), (1,), (rows,)}:
        raise ConversionError(
            f"target is {given.dtype} {list(given.shape)}; expected the number of a class, or one for each of {rows}"
        )
    return np.ascontiguousarray(np.broadcast_to(given.astype(np.int64), (rows,)))


def _single(
    method: str, request: Message, response: type[M], result: Callable[[M], T], *, idempotent: bool = True
) -> Call[T]:
    payload = request.SerializeToString()

    def answer(_: int, received: bytes) -> T:
        try:
            return result(response.FromString(received))
        except DecodeError as exc:
            raise ProtocolError(f"the answer to {method} cannot be read") from exc

    return Call(method, 1, lambda _: payload, answer, lambda answers, _: answers[0], idempotent)


def _inference(
    model: ModelMetadata,
    version: str,
    arrays: Mapping[str, Array],
    outputs: tuple[str, ...],
    *,
    rows_per_request: int,
    join: Callable[[Sequence[Answer], float], T],
    timing: bool = False,
    signature: str = "",
) -> Call[T]:
    encoder = RequestEncoder(model.name, version, model.inputs, outputs, timing=timing, signature=signature)
    in_rows = bool(model.inputs) and all(spec.in_rows for spec in (*model.inputs, *model.outputs))
    if not in_rows:
        return Call(
            "ModelInfer",
            1,
            lambda _: encoder.encode(arrays),
            lambda _, payload: decode(payload, wanted=outputs),
            join,
        )
    rows = len(next(iter(arrays.values())))
    row_bytes = sum(_nbytes(array) for array in arrays.values()) // rows
    ranges = row_ranges(rows, row_bytes, rows_per_request)

    def request(part: int) -> bytes:
        here = slice(ranges[part].start, ranges[part].stop)
        return encoder.encode({name: array[here] for name, array in arrays.items()})

    def answer(part: int, payload: bytes) -> Answer:
        return decode(payload, rows=len(ranges[part]), wanted=outputs)

    return Call("ModelInfer", len(ranges), request, answer, join)


def _nbytes(array: Array) -> int:
    """Return the size on the wire."""
    if array.dtype.hasobject:
        return sum(4 + len(item) for item in array.reshape(-1).tolist())
    return int(array.nbytes)


def _concatenate(answers: Sequence[Answer], name: str) -> Array:
    """Join the parts; the copy of a single one makes it writable, as the caller of a function may expect."""
    try:
        parts = [answer.outputs[name] for answer in answers]
        return np.concatenate(parts) if len(parts) > 1 else parts[0].copy()
    except (KeyError, ValueError) as exc:
        raise ProtocolError(f"the answers to one call differ in the output {name!r}: {exc}") from exc


def _class_outputs(model: ModelMetadata) -> tuple[str, str | None]:
    """Return the names of the scores and of the classes, None where the classes are the scores' argmax."""
    by_name = {spec.name: spec for spec in model.outputs}
    floats = [spec.name for spec in model.outputs if _is_scores(spec)]
    if "probabilities" in by_name:
        scores = "probabilities"
    elif len(floats) == 1:
        scores = floats[0]
    else:
        raise ConversionError(
            f"{model.name} returns {'; '.join(map(str, model.outputs)) or 'nothing'}: predict needs an "
            f"output named probabilities or a single one of floats [N, classes]; {images.USE_INFER}"
        )
    return scores, "classes" if "classes" in by_name else None


def _is_scores(spec: TensorSpec) -> bool:
    return len(spec.shape) == 2 and (spec.datatype.startswith("FP") or spec.datatype == "BF16")

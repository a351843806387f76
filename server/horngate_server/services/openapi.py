"""The HTTP port's API as an OpenAPI document, made of the models that are served, from their signatures."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from horngate_protos import __version__
from horngate_protos.datatypes import BYTES, COMPLEX
from horngate_server.core.errors import ModelNotFound, NotReady
from horngate_server.core.inference import ModelInfo
from horngate_server.core.signature import FREE, TensorSpec
from horngate_server.engine.routing import Models, Servable

MOST_MODELS = 256
"""What is described; the document says where it ends."""
ERRORS = {
    "400": "the request does not fit the model; the sentence says what was expected and what came",
    "401": "no token, or one that nobody has",
    "404": "no such model, or no such version of it",
    "413": "the body is too large, as it came or expanded",
    "429": "the queue or the memory is full: try again after Retry-After",
    "503": "the model is loading, or the server is stopping: try again elsewhere or later",
    "504": "the request's timeout has passed, or cannot be met",
}


def document(models: Models) -> dict[str, Any]:
    """Return the document.

    Args:
        models: those that are served.
    """
    names = sorted({served.info.name for served in models})
    paths: dict[str, Any] = dict(_GENERAL)
    for name in names[:MOST_MODELS]:
        with suppress(ModelNotFound, NotReady):  # it has left meanwhile
            served = models.get(name)
            paths |= _open_inference(name, served) | _tensorflow_serving(name, served)
    left_out = f" {len(names) - MOST_MODELS} further models are served, and not described." * (len(names) > MOST_MODELS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Horngate",
            "version": __version__,
            "description": "The Open Inference Protocol (/v2) and TensorFlow Serving's REST API (/v1)." + left_out,
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _object({"error": {"type": "string"}})},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


# --- private ------------------------------------------------------------------------------------------

_Schema = dict[str, Any]


def _object(properties: Mapping[str, _Schema], *, optional: Sequence[str] = ()) -> _Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


def _operation(summary: str, answer: _Schema | None, asked: _Schema | None = None) -> _Schema:
    """Describe an operation; ``asked``: the body that it takes."""
    fine: _Schema = {"description": "the answer"}
    if answer is not None:
        fine["content"] = {"application/json": {"schema": answer}}
    failed = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: _Schema = {
        "summary": summary,
        "responses": {"200": fine, **{code: {"description": why, "content": failed} for code, why in ERRORS.items()}},
    }
    if asked is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": asked}}}
    return operation


_GENERAL: Mapping[str, Any] = {
    "/v2": {"get": _operation("The server's name, version and extensions.", {"type": "object"})},
    "/v2/health/live": {"get": _operation("Whether the process answers.", _object({"live": {"type": "boolean"}}))},
    "/v2/health/ready": {"get": _operation("Whether traffic is welcome.", _object({"ready": {"type": "boolean"}}))},
    "/v2/models/stats": {"get": _operation("What all versions have done.", {"type": "object"})},
    "/v2/repository/index": {
        "post": _operation("Every version, with its state.", {"type": "array", "items": {"type": "object"}})
    },
}


def _open_inference(name: str, served: Servable) -> dict[str, Any]:
    """Return a model's paths of the Open Inference Protocol."""
    signature = served.info.signature
    inputs = [_tensor(spec) for spec in signature.inputs]
    asked = _object(
        {
            "inputs": {"type": "array", "items": _any_of(inputs)},
            "id": {"type": "string"},
            "parameters": _object(
                {
                    "signature": {"enum": [*served.infos]},
                    "priority": {"enum": [1, 2, "interactive", "bulk"]},
                    "timeout": {"type": "integer", "description": "microseconds"},
                    "binary_data_output": {"type": "boolean"},
                },
                optional=["signature", "priority", "timeout", "binary_data_output"],
            ),
            "outputs": {
                "type": "array",
                "items": _object({"name": {"enum": [spec.name for spec in signature.outputs]}}),
            },
        },
        optional=["id", "parameters", "outputs"],
    )
    answer = _object(
        {
            "model_name": {"const": name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _any_of([_tensor(spec) for spec in signature.outputs])},
        },
        optional=["id"],
    )
    about = f"/v2/models/{name}"
    return {
        about: {"get": _operation(f"{name}'s inputs, outputs and versions.", {"type": "object"})},
        f"{about}/ready": {"get": _operation(f"Whether {name} serves.", {"type": "object"})},
        f"{about}/config": {"get": _operation(f"{name}'s configuration, in Triton's words.", {"type": "object"})},
        f"{about}/stats": {"get": _operation(f"What {name} has done.", {"type": "object"})},
        f"{about}/infer": {"post": _operation(f"Compute {signature}.", answer, asked)},
    }


def _tensorflow_serving(name: str, served: Servable) -> dict[str, Any]:
    """Return a model's paths of TensorFlow Serving's API."""
    info = served.info
    examples = _object(
        {
            "examples": {"type": "array", "items": {"type": "object"}},
            "context": {"type": "object"},
            "signature_name": {"enum": [*served.infos]},
        },
        optional=["context", "signature_name"],
    )
    results = _object({"results": {"type": "array"}})
    about = f"/v1/models/{name}"
    paths = {
        about: {"get": _operation(f"The state of {name}'s versions.", {"type": "object"})},
        f"{about}/metadata": {"get": _operation(f"{name}'s signatures.", {"type": "object"})},
        f"{about}:classify": {"post": _operation("The classes of examples, with scores.", results, examples)},
        f"{about}:regress": {"post": _operation("The values of examples.", results, examples)},
    }
    if not any(spec.datatype in COMPLEX for spec in (*info.signature.inputs, *info.signature.outputs)):
        paths[f"{about}:predict"] = {"post": _predict(info, [*served.infos])}
    return paths


def _predict(info: ModelInfo, signatures: Sequence[str]) -> _Schema:
    inputs, outputs = info.signature.inputs, info.signature.outputs
    named = {"signature_name": {"enum": list(signatures)}}
    rows = {"type": "array", "items": _joined(inputs, batched=True)}
    asked = [
        _object({"instances": rows, **named}, optional=["signature_name"]),
        _object({"inputs": _joined(inputs, batched=False), **named}, optional=["signature_name"]),
    ]
    answers = [
        _object({"predictions": {"type": "array", "items": _joined(outputs, batched=True)}}),
        _object({"outputs": _joined(outputs, batched=False)}),
    ]
    return _operation(f"Compute {info.signature}.", _any_of(answers), _any_of(asked))


def _any_of(schemas: Sequence[_Schema]) -> _Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _joined(specs: Sequence[TensorSpec], *, batched: bool) -> _Schema:
    """Describe tensors as TensorFlow Serving has them: one alone, several by name; ``batched``: a row of each."""
    described = {spec.name: _nested(spec, spec.shape[1:] if batched and spec.shape else spec.shape) for spec in specs}
    return next(iter(described.values())) if len(described) == 1 else _object(described)


def _tensor(spec: TensorSpec) -> _Schema:
    """Describe a tensor of the Open Inference Protocol."""
    shape: _Schema = {"type": "array", "items": {"type": "integer"}}
    if spec.shape is not None:
        shape = {"type": "array", "prefixItems": [_axis(axis) for axis in spec.shape], "items": False}
    return _object(
        {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype.name},
            "shape": shape,
            "data": {"description": "nested as the shape is, or flat", "type": "array"},
            "parameters": {"type": "object"},
        },
        optional=["data", "parameters"],
    )


def _axis(length: int) -> _Schema:
    return {"type": "integer", "minimum": 0} if length == FREE else {"const": length}


def _nested(spec: TensorSpec, shape: Sequence[int] | None) -> _Schema:
    """Describe lists that are nested as a shape is."""
    schema = _element(spec)
    if shape is None:
        return {"description": f"{spec.datatype.name}, nested as its shape is"}
    for axis in reversed(shape):
        schema = {"type": "array", "items": schema}
        if axis != FREE:
            schema |= {"minItems": axis, "maxItems": axis}
    return schema


def _element(spec: TensorSpec) -> _Schema:
    if spec.datatype is BYTES:
        return {"anyOf": [{"type": "string"}, _object({"b64": {"type": "string"}})]}
    kind = spec.datatype.numpy.kind
    if spec.datatype.name == "BF16":
        kind = "f"
    return {"type": {"b": "boolean", "i": "integer", "u": "integer"}.get(kind, "number")}

"""``/v1`` on the HTTP port: TensorFlow Serving's REST API."""

import json
from functools import partial
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from horngate_protos import tensorflow_serving_pb2 as tfs
from horngate_protos.datatypes import tensorflow_name
from horngate_server.core.codec import Codec
from horngate_server.core.errors import InvalidRequest
from horngate_server.protocols.model_spec import read_spec
from horngate_server.protocols.tensorflow_serving_json import (
    CLASSIFY,
    PREDICT,
    REGRESS,
    decode_examples,
    decode_predict,
)
from horngate_server.services.tensorflow_serving_metadata import SIGNATURES, TensorflowServingMetadata
from horngate_server.transports.http.calls import Calls

MODEL = "/v1/models/{name}"
MODELS = (MODEL, MODEL + "/versions/{number:int}", MODEL + "/labels/{label}")
LARGEST = (1 << 63) - 1


def routes(calls: Calls, about: TensorflowServingMetadata) -> list[Route]:
    """Return the routes.

    Args:
        calls: what all routes have in common.
        about: answers what needs no computing.
    """

    async def predict(request: Request) -> Response:
        asked = read_spec(_spec(request))
        return await calls.infer(request, lambda body: decode_predict(body.content, asked, about.signature), PREDICT)

    async def examples(codec: Codec, request: Request) -> Response:
        asked = read_spec(_spec(request))
        return await calls.infer(request, lambda body: decode_examples(body.content, asked), codec)

    async def status(request: Request) -> Response:
        calls.enter(request)
        question = tfs.GetModelStatusRequest(model_spec=_spec(request))
        found = _dict(tfs.GetModelStatusResponse.FromString(about.status(question.SerializeToString())))
        for each in found["model_version_status"]:
            each["status"]["error_code"] = "INTERNAL" if each["status"]["error_code"] else "OK"
        return _json(found)

    async def metadata(request: Request) -> Response:
        calls.enter(request)
        question = tfs.GetModelMetadataRequest(model_spec=_spec(request), metadata_field=[SIGNATURES])
        answer = tfs.GetModelMetadataResponse.FromString(about.metadata(question.SerializeToString()))
        definitions = tfs.SignatureDefMap()
        answer.metadata[SIGNATURES].Unpack(definitions)
        found = _dict(definitions)
        for definition in found["signature_def"].values():
            for tensor in (*definition["inputs"].values(), *definition["outputs"].values()):
                tensor["dtype"] = tensorflow_name(tensor["dtype"])
        return _json({"model_spec": _dict(answer.model_spec), "metadata": {SIGNATURES: found}})

    return [
        *(Route(f"{path}:predict", predict, methods=["POST"]) for path in MODELS),
        *(Route(f"{path}:classify", partial(examples, CLASSIFY), methods=["POST"]) for path in MODELS),
        *(Route(f"{path}:regress", partial(examples, REGRESS), methods=["POST"]) for path in MODELS),
        *(Route(f"{path}/metadata", metadata) for path in MODELS),
        *(Route(path, status) for path in MODELS),
    ]


# --- private ------------------------------------------------------------------------------------------


def _spec(request: Request) -> tfs.ModelSpec:
    """Return which model the path asks for."""
    path = request.path_params
    spec = tfs.ModelSpec(name=path["name"])
    if "number" in path:
        if path["number"] > LARGEST:
            raise InvalidRequest(f"version {str(path['number'])[:40]}; expected at most {LARGEST}")
        spec.version.value = path["number"]
    elif "label" in path:
        spec.version_label = path["label"]
    return spec


def _dict(message: Message) -> dict[str, Any]:
    """Return a message as TensorFlow Serving's JSON has it: all fields, under their own names."""
    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content, indent=1) + "\n", media_type="application/json")

"""TensorFlow Serving's questions: which signatures a model has, and how its versions are."""

from collections.abc import Callable, Mapping, Sequence

from horngate_protos import tensorflow_pb2 as tf
from horngate_protos import tensorflow_serving_pb2 as tfs
from horngate_server.core.errors import InvalidRequest, ModelNotFound
from horngate_server.core.methods import MODEL, PREDICTION
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.routing import Models
from horngate_server.lifecycle.version_state import State, VersionState
from horngate_server.protocols.model_spec import Asked, read_spec, write_spec

SIGNATURES = "signature_def"
"""The only metadata_field that there is."""
INTERNAL = 13
"""gRPC's number for what is wrong with a version that was refused."""
STATES = {
    State.FOUND: tfs.ModelVersionStatus.START,
    State.LOADING: tfs.ModelVersionStatus.LOADING,
    State.READY: tfs.ModelVersionStatus.AVAILABLE,
    State.DRAINING: tfs.ModelVersionStatus.UNLOADING,
    State.ENDED: tfs.ModelVersionStatus.END,
    State.FAILED: tfs.ModelVersionStatus.END,
}


class TensorflowServingMetadata:
    """Answers them.

    Args:
        models: who answers whom.
        states: what became of every version.
    """

    def __init__(self, models: Models, states: Callable[[], Sequence[VersionState]]) -> None:
        self._models = models
        self._states = states

    def handlers(self) -> Mapping[str, Callable[[bytes], bytes]]:
        """Return the methods, by full name."""
        return {f"/{PREDICTION}/GetModelMetadata": self.metadata, f"/{MODEL}/GetModelStatus": self.status}

    def metadata(self, message: bytes) -> bytes:
        """Answer a GetModelMetadataRequest with all signatures that are served."""
        request = tfs.GetModelMetadataRequest.FromString(message)
        asked = read_spec(request.model_spec if request.HasField("model_spec") else None)
        if not request.metadata_field:
            raise InvalidRequest(f"GetModelMetadataRequest must specify at least one metadata_field: {SIGNATURES}")
        for name in request.metadata_field:
            if name != SIGNATURES:
                raise InvalidRequest(f"Metadata field {name} is not supported; expected {SIGNATURES}")
        served = self._models.get(asked.model, asked.version)
        response = tfs.GetModelMetadataResponse()
        response.model_spec.MergeFromString(write_spec(served.info.name, served.info.version, ""))
        definitions = tfs.SignatureDefMap()
        for name, info in served.infos.items():
            definitions.signature_def[name].CopyFrom(_definition(info.signature))
        response.metadata[SIGNATURES].Pack(definitions)
        return response.SerializeToString()

    def status(self, message: bytes) -> bytes:
        """Answer a GetModelStatusRequest, for one version or all."""
        request = tfs.GetModelStatusRequest.FromString(message)
        asked = read_spec(request.model_spec if request.HasField("model_spec") else None)
        states = [each for each in self._states() if each.name == asked.model]
        if not states:
            raise ModelNotFound(f"Could not find any versions of model {asked.model}")
        if asked.version:
            number = self._number(asked)
            states = [each for each in states if str(each.version) == number]
            if not states:
                raise ModelNotFound(f"Could not find version {asked.version} of model {asked.model}")
        states.sort(key=lambda each: each.version, reverse=True)
        return tfs.GetModelStatusResponse(model_version_status=map(_status, states)).SerializeToString()

    def signature(self, asked: Asked) -> Signature:
        """Return the signature that a request asks for.

        Raises:
            ModelNotFound: there is no such model, or no such version of it.
            NotReady: it is loading.
            SignatureNotFound: it has no such signature.
        """
        return self._models.get(asked.model, asked.version).signature(asked.signature).signature

    # --- private --------------------------------------------------------------------------------------

    def _number(self, asked: Asked) -> str:
        """Return the version's number, for a label too."""
        if asked.version.removeprefix("-").isdecimal():
            return asked.version
        return self._models.get(asked.model, asked.version).info.version


# --- private ------------------------------------------------------------------------------------------


def _definition(signature: Signature) -> tf.SignatureDef:
    return tf.SignatureDef(
        inputs={spec.name: _info(spec) for spec in signature.inputs},
        outputs={spec.name: _info(spec) for spec in signature.outputs},
        method_name=signature.method,
    )


def _info(spec: TensorSpec) -> tf.TensorInfo:
    if spec.shape is None:
        shape = tf.TensorShapeProto(unknown_rank=True)
    else:
        shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=axis) for axis in spec.shape])
    return tf.TensorInfo(name=spec.tensor, dtype=spec.datatype.tensorflow, tensor_shape=shape)


def _status(each: VersionState) -> tfs.ModelVersionStatus:
    return tfs.ModelVersionStatus(
        version=each.version,
        state=STATES[each.state],
        status=tfs.StatusProto(error_code=INTERNAL if each.state == State.FAILED else 0, error_message=each.reason),
    )

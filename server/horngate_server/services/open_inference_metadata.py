"""The Open Inference Protocol's questions, and those that Triton's clients ask beside."""

from collections.abc import Callable, Mapping, Sequence

from horngate_protos import __version__
from horngate_protos import open_inference_pb2 as oip
from horngate_protos import triton_pb2 as triton
from horngate_protos.datatypes import BYTES, COMPLEX
from horngate_server.core.clock import Clock
from horngate_server.core.errors import ModelNotFound, NotReady
from horngate_server.core.inference import ModelInfo
from horngate_server.core.methods import OPEN_INFERENCE
from horngate_server.core.model import Array
from horngate_server.core.settings import LITERT, TENSORFLOW
from horngate_server.core.signature import FREE, ROWS, WHOLE, Signature, TensorSpec
from horngate_server.engine.executor import Executor
from horngate_server.engine.routing import Models, Servable
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.lifecycle.repository import FILES
from horngate_server.lifecycle.version_state import State, VersionState
from horngate_server.protocols.open_inference.header import BULK, INTERACTIVE
from horngate_server.protocols.strings import pack
from horngate_server.telemetry.statistics import Duration, Stages, Statistics

EXTENSIONS = (
    "binary_tensor_data", "classification", "model_configuration", "parameters", "schedule_policy", "statistics",
)  # fmt: skip
"""Triton's names of what is beyond the protocol; and, for administrators, this:"""
ADMIN_EXTENSION = "model_repository"
STATES = {State.READY: "READY", State.LOADING: "LOADING", State.DRAINING: "UNLOADING"}
"""Triton's names of states; any other is UNAVAILABLE."""

PLATFORMS = {TENSORFLOW: "tensorflow_savedmodel", LITERT: "litert_tflite"}
"""What the metadata call a model that an engine computes, as Triton names its platforms."""


class OpenInferenceMetadata:
    """Answers them.

    Args:
        models: who answers whom.
        readiness: whether traffic is welcome.
        statistics: what versions have done.
        states: what became of every version.
        clock: monotonic seconds, as in ``states`` and ``statistics``.
        wall_clock: seconds since 1970.
        admin: whether administrators' calls are taken.
    """

    def __init__(
        self,
        *,
        models: Models,
        readiness: Readiness,
        statistics: Statistics,
        states: Callable[[], Sequence[VersionState]],
        clock: Clock,
        wall_clock: Clock,
        admin: bool,
    ) -> None:
        self._models = models
        self._readiness = readiness
        self._statistics = statistics
        self._states = states
        self._clock = clock
        self._wall_clock = wall_clock
        self._admin = admin

    def handlers(self) -> Mapping[str, Callable[[bytes], bytes]]:
        """Return the methods, by full name."""
        return {
            f"/{OPEN_INFERENCE}/{name}": handler
            for name, handler in {
                "ServerLive": self.live,
                "ServerReady": self.ready,
                "ServerMetadata": self.server,
                "ModelReady": self.model_ready,
                "ModelMetadata": self.model,
                "ModelConfig": self.config,
                "ModelStatistics": self.statistics,
                "RepositoryIndex": self.index,
            }.items()
        }

    def live(self, _message: bytes) -> bytes:
        """Answer a ServerLiveRequest."""
        return oip.ServerLiveResponse(live=True).SerializeToString()

    def ready(self, _message: bytes) -> bytes:
        """Answer a ServerReadyRequest."""
        return oip.ServerReadyResponse(ready=self._readiness.serving()).SerializeToString()

    def server(self, _message: bytes) -> bytes:
        """Answer a ServerMetadataRequest."""
        return oip.ServerMetadataResponse(
            name="horngate",
            version=__version__,
            extensions=[*EXTENSIONS, *([ADMIN_EXTENSION] if self._admin else [])],
        ).SerializeToString()

    def model_ready(self, message: bytes) -> bytes:
        """Answer a ModelReadyRequest."""
        request = oip.ModelReadyRequest.FromString(message)
        try:
            served = self._models.get(request.name, request.version)
        except NotReady:
            return oip.ModelReadyResponse(ready=False).SerializeToString()
        return oip.ModelReadyResponse(ready=self._readiness.serving(served.info.name)).SerializeToString()

    def model(self, message: bytes) -> bytes:
        """Answer a ModelMetadataRequest: all signatures, the versions that may be asked for, recorded requests."""
        request = oip.ModelMetadataRequest.FromString(message)
        served = self._models.get(request.name, request.version)
        signature = served.info.signature
        others = [info for info in served.infos.values() if info is not served.info]
        return oip.ModelMetadataResponse(
            name=served.info.name,
            versions=self._models.versions(served.info.name),
            platform=PLATFORMS[served.engine],
            inputs=_tensors(signature.inputs),
            outputs=_tensors(signature.outputs),
            horngate_batching=_batching(served.info),
            horngate_signatures=[
                oip.ModelMetadataResponse.SignatureMetadata(
                    name=info.signature.name,
                    inputs=_tensors(info.signature.inputs),
                    outputs=_tensors(info.signature.outputs),
                    batching=_batching(info),
                )
                for info in (served.info, *others)
            ],
            horngate_recorded=[_request(signature, each) for each in served.recorded]
            if request.horngate_recorded
            else (),
        ).SerializeToString()

    def config(self, message: bytes) -> bytes:
        """Answer a ModelConfigRequest: how the model is served, in the words of Triton's config.pbtxt."""
        request = triton.ModelConfigRequest.FromString(message)
        served = self._models.get(request.name, request.version)
        versions = map(int, self._models.versions(served.info.name))
        return triton.ModelConfigResponse(config=_config(served, versions=list(versions))).SerializeToString()

    def statistics(self, message: bytes) -> bytes:
        """Answer a ModelStatisticsRequest, for one version, all of a model's or everybody's."""
        request = triton.ModelStatisticsRequest.FromString(message)
        models = self._models
        if request.name:
            served = [models.get(request.name, request.version)]
            if not request.version:
                served = [models.get(request.name, version) for version in models.versions(request.name)]
        elif request.version:
            raise ModelNotFound(f"version {request.version!r} of no model; expected the model's name too")
        else:
            served = sorted(models, key=lambda each: (each.info.name, int(each.info.version)))
        memory = {(each.name, str(each.version)): each.report.memory_bytes for each in self._states() if each.report}
        return triton.ModelStatisticsResponse(
            model_stats=[
                self._statistics_of(each, memory.get((each.info.name, each.info.version), 0)) for each in served
            ]
        ).SerializeToString()

    def index(self, message: bytes) -> bytes:
        """Answer a RepositoryIndexRequest: every version, with what Horngate knows beyond Triton's four states."""
        request = oip.RepositoryIndexRequest.FromString(message)
        states = [each for each in self._states() if each.state == State.READY or not request.ready]
        return oip.RepositoryIndexResponse(models=[self._entry(each) for each in states]).SerializeToString()

    # --- private --------------------------------------------------------------------------------------

    def _statistics_of(self, served: Servable, memory_bytes: int) -> triton.ModelStatistics:
        info = served.info
        totals = self._statistics.of(info.name, info.version)
        age = self._clock() - totals.last
        return triton.ModelStatistics(
            name=info.name,
            version=info.version,
            last_inference=round((self._wall_clock() - age) * 1000) if totals.batches else 0,
            inference_count=totals.rows,
            execution_count=totals.batches,
            inference_stats=triton.InferStatistics(
                success=_duration(totals.success),
                fail=_duration(totals.fail),
                queue=_duration(totals.queue),
                **_stages(totals.requests),
            ),
            batch_stats=[
                triton.InferBatchStatistics(batch_size=rows, **_stages(each)) for rows, each in totals.sizes.items()
            ],
            memory_usage=[triton.MemoryUsage(type=served.device, byte_size=memory_bytes)],
        )

    def _entry(self, each: VersionState) -> oip.RepositoryIndexResponse.ModelIndex:
        return oip.RepositoryIndexResponse.ModelIndex(
            name=each.name,
            version=str(each.version),
            state=STATES.get(each.state, "UNAVAILABLE"),
            reason=each.reason or ("" if each.state == State.READY else each.state),
            horngate_state=each.state,
            age_seconds=self._clock() - each.since,
            rows=self._statistics.of(each.name, str(each.version)).rows,
            device=each.report.device if each.report else "",
            labels=each.labels,
            verification=each.report.verification if each.report else "",
            shadow_rows=each.shadow.rows if each.shadow else 0,
            shadow_agreed=each.shadow.agreed if each.shadow else 0,
            engine=each.report.engine if each.report else "",
        )


# --- private ------------------------------------------------------------------------------------------


def _tensors(specs: Sequence[TensorSpec]) -> list[oip.ModelMetadataResponse.TensorMetadata]:
    tensor = oip.ModelMetadataResponse.TensorMetadata
    return [tensor(name=each.name, datatype=each.datatype.name, shape=_shape(each)) for each in specs]


def _request(signature: Signature, inputs: Mapping[str, Array]) -> oip.ModelInferRequest:
    """Write a request without its model."""
    tensor = oip.ModelInferRequest.InferInputTensor
    arrays = [inputs[spec.name] for spec in signature.inputs]
    return oip.ModelInferRequest(
        inputs=[
            tensor(name=spec.name, datatype=spec.datatype.name, shape=array.shape)
            for spec, array in zip(signature.inputs, arrays, strict=True)
        ],
        raw_input_contents=[
            pack(array.reshape(-1).tolist()) if array.dtype.hasobject else array.tobytes() for array in arrays
        ],
    )


def _batching(info: ModelInfo) -> str:
    """Say whether a large request may be sent in parts."""
    return WHOLE if info.batching.whole or info.batching.shared else ROWS


def _config(served: Servable, versions: list[int]) -> triton.ModelConfig:
    """Return a model's configuration; one that takes each request by itself has no batches, and whole shapes."""
    signature, batching = served.info.signature, served.info.batching
    kind = triton.ModelInstanceGroup.KIND_GPU if served.device == "GPU" else triton.ModelInstanceGroup.KIND_CPU
    return triton.ModelConfig(
        name=served.info.name,
        platform=PLATFORMS[served.engine],
        backend="horngate",
        version_policy=triton.ModelVersionPolicy(specific=triton.ModelVersionPolicy.Specific(versions=versions)),
        max_batch_size=0 if batching.whole else served.executor.max_batch_rows,
        input=[
            triton.ModelInput(name=spec.name, data_type=_type(spec), dims=_dims(spec, batched=not batching.whole))
            for spec in signature.inputs
        ],
        output=[
            triton.ModelOutput(
                name=spec.name,
                data_type=_type(spec),
                dims=_dims(spec, batched=not batching.whole and place not in batching.shared),
            )
            for place, spec in enumerate(signature.outputs)
        ],
        instance_group=[triton.ModelInstanceGroup(name=served.info.name, count=served.executor.at_once, kind=kind)],
        default_model_filename=FILES[served.engine],
        dynamic_batching=None if batching.whole else _dynamic_batching(served.executor),
        model_transaction_policy=triton.ModelTransactionPolicy(decoupled=False),
    )


def _dynamic_batching(executor: Executor) -> triton.ModelDynamicBatching:
    return triton.ModelDynamicBatching(
        max_queue_delay_microseconds=round(executor.delay_s * 1e6),
        priority_levels=BULK,
        default_priority_level=INTERACTIVE,
        default_queue_policy=triton.ModelQueuePolicy(
            timeout_action=triton.ModelQueuePolicy.REJECT,
            allow_timeout_override=True,
            max_queue_size=executor.capacity_rows,
        ),
    )


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    """Return the axes as metadata have them, where any number of axes cannot be said: one of any length."""
    return (FREE,) if spec.shape is None else spec.shape


def _type(spec: TensorSpec) -> str:
    """Return Triton's name of a datatype: it has none for complex numbers, and its own for BYTES."""
    if spec.datatype in COMPLEX:
        return "TYPE_INVALID"
    return "TYPE_STRING" if spec.datatype is BYTES else f"TYPE_{spec.datatype.name}"


def _dims(spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    """Return the axes; ``batched``: those of a row, of which Triton has at least one."""
    if not batched or spec.shape is None:
        return _shape(spec)
    return spec.row or (1,)


def _duration(duration: Duration) -> triton.StatisticDuration:
    return triton.StatisticDuration(count=duration.count, ns=round(duration.seconds * 1e9))


def _stages(stages: Stages) -> dict[str, triton.StatisticDuration]:
    return {
        name: _duration(Duration(stages.count, seconds))
        for name, seconds in (
            ("compute_input", stages.join_s),
            ("compute_infer", stages.run_s),
            ("compute_output", stages.write_s),
        )
    }

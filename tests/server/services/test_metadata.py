"""What callers ask about the server and its models."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from horngate_protos import open_inference_pb2 as oip
from horngate_protos import tensorflow_serving_pb2 as tfs
from horngate_protos import triton_pb2 as triton
from horngate_protos.datatypes import BY_NAME
from horngate_server.core.errors import InvalidRequest, LabelNotFound, ModelNotFound, NotImplementedHere, RequestError
from horngate_server.core.inference import ModelInfo
from horngate_server.core.signature import ROWS, WHOLE, Batching, Signature, TensorSpec
from horngate_server.engine.routing import Models, Servable
from horngate_server.lifecycle.version_state import State, VersionState
from horngate_server.services import unimplemented
from horngate_server.services.open_inference_metadata import OpenInferenceMetadata
from horngate_server.services.tensorflow_serving_metadata import TensorflowServingMetadata
from support.in_process import SIGNATURE, Clock, InProcessServer

STATES = [
    VersionState("m", number, state, reason, 990.0)
    for number, (state, reason) in enumerate(
        [
            (State.FOUND, ""),
            (State.LOADING, ""),
            (State.FAILED, "it disagrees"),
            (State.READY, ""),
            (State.DRAINING, ""),
            (State.ENDED, "replaced"),
        ]
    )
]
"""Version 3 is the one that is ready, and the server's."""


@pytest.fixture
def server() -> Iterator[InProcessServer]:
    """A model with two signatures and a label."""
    with InProcessServer(delay_s=0.002) as made:
        other = Signature("other", SIGNATURE.inputs, SIGNATURE.outputs[:1])
        infos = {each.name: ModelInfo("m", "3", each) for each in (SIGNATURE, other)}
        served = Servable(infos[SIGNATURE.name], made.executor, infos)
        made.models.route("m", served, labels={"stable": served})
        yield made


def open_inference(
    server: InProcessServer, *, models: Models | None = None, clock: Callable[[], float] | None = None
) -> OpenInferenceMetadata:
    """Answer ten seconds after the states began, half a minute after 1970 did."""
    return OpenInferenceMetadata(
        models=models or server.models,
        readiness=server.readiness,
        statistics=server.statistics,
        states=lambda: STATES,
        clock=clock or Clock(),
        wall_clock=lambda: 30.0,
        admin=False,
    )


def tensorflow_serving(models: Models) -> TensorflowServingMetadata:
    """Answer the same to TensorFlow Serving's callers."""
    return TensorflowServingMetadata(models, lambda: STATES)


def test_a_configuration_says_in_tritons_words_how_the_model_is_served(server: InProcessServer) -> None:
    """Shapes without the batch, the batch's limit, the queue's policy, two priorities, the versions."""
    asked = triton.ModelConfigRequest(name="m").SerializeToString()
    config = triton.ModelConfigResponse.FromString(open_inference(server).config(asked)).config
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [("x", 8, [2])]
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == [
        ("double", 9, [2]),
        ("total", 11, [1]),
    ]
    assert config.max_batch_size == 8
    batching = config.dynamic_batching
    assert (batching.max_queue_delay_microseconds, batching.priority_levels, batching.default_priority_level) == (
        2000, 2, 1,
    )  # fmt: skip
    assert batching.default_queue_policy.max_queue_size == 64
    assert list(config.version_policy.specific.versions) == [3]


def test_statistics_can_be_asked_for_one_version_a_model_or_everybody(server: InProcessServer) -> None:
    """The same cumulative numbers; a version of no model, or an unknown one, is not found."""
    assert server.ask([[1, 2]]).status() == "OK"
    about = open_inference(server, clock=server.clock)
    for name, version in (("", ""), ("m", ""), ("m", "3"), ("m", "stable")):
        asked = triton.ModelStatisticsRequest(name=name, version=version).SerializeToString()
        [found] = triton.ModelStatisticsResponse.FromString(about.statistics(asked)).model_stats
        assert (found.name, found.version, found.inference_count, found.execution_count) == ("m", "3", 1, 1)
        assert 0 < found.last_inference <= 30_000
        assert found.inference_stats.success.count == 1
        assert found.inference_stats.success.ns >= found.inference_stats.compute_infer.ns > 0
        assert [(each.batch_size, each.compute_infer.count) for each in found.batch_stats] == [(1, 1)]
    for name, version in (("", "3"), ("m", "9"), ("nobody", "")):
        with pytest.raises(ModelNotFound):
            about.statistics(triton.ModelStatisticsRequest(name=name, version=version).SerializeToString())


def test_the_repository_index_has_every_version_in_tritons_states(server: InProcessServer) -> None:
    """All of them, or those that are ready; with the reason, and what Horngate calls the state."""
    about = open_inference(server)
    every = oip.RepositoryIndexResponse.FromString(about.index(b"")).models
    assert [each.state for each in every] == [
        "UNAVAILABLE", "LOADING", "UNAVAILABLE", "READY", "UNLOADING", "UNAVAILABLE",
    ]  # fmt: skip
    assert (every[2].reason, every[2].horngate_state, every[2].age_seconds) == ("it disagrees", "failed", 10.0)
    asked = oip.RepositoryIndexRequest(ready=True).SerializeToString()
    assert [each.version for each in oip.RepositoryIndexResponse.FromString(about.index(asked)).models] == ["3"]


def test_recorded_requests_come_with_a_models_metadata_where_they_are_asked_for(server: InProcessServer) -> None:
    """As requests that can be sent; nobody else gets them."""
    rows = np.arange(4, dtype=np.int32).reshape(2, 2)
    info = ModelInfo("m", "3", SIGNATURE)
    server.models.route("m", Servable(info, server.executor, recorded=[{"x": rows}]))
    about = open_inference(server)
    answers = [
        oip.ModelMetadataResponse.FromString(about.model(asked.SerializeToString())).horngate_recorded
        for asked in (oip.ModelMetadataRequest(name="m"), oip.ModelMetadataRequest(name="m", horngate_recorded=True))
    ]
    assert list(answers[0]) == []
    [request] = answers[1]
    assert [(each.name, each.datatype, list(each.shape)) for each in request.inputs] == [("x", "INT32", [2, 2])]
    assert list(request.raw_input_contents) == [rows.tobytes()]


def test_only_true_extensions_are_listed(server: InProcessServer) -> None:
    """What is not implemented is not promised; the repository's is for administrators."""
    listed = oip.ServerMetadataResponse.FromString(open_inference(server).server(b"")).extensions
    assert {"statistics", "model_configuration", "classification", "schedule_policy"} <= set(listed)
    assert not {"model_repository", "system_shared_memory", "cuda_shared_memory", "trace", "sequence"} & set(listed)


def spec(**changes: object) -> tfs.ModelSpec:
    """Make a ModelSpec for the model m."""
    made = tfs.ModelSpec(name="m")
    for name, value in changes.items():
        if name == "version":
            assert isinstance(value, int)
            made.version.value = value
        else:
            setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({}, {5: 50, 4: 40, 3: 30, 2: 50, 1: 20, 0: 10}, id="all"),
        pytest.param({"version": 4}, {4: 40}, id="one"),
        pytest.param({"version_label": "stable"}, {3: 30}, id="label"),
    ],
)
def test_tensorflow_servings_status_has_every_version_and_why_one_failed(
    server: InProcessServer, changes: dict[str, object], found: dict[int, int]
) -> None:
    """The newest first, in TensorFlow Serving's states."""
    asked = tfs.GetModelStatusRequest(model_spec=spec(**changes)).SerializeToString()
    told = tfs.GetModelStatusResponse.FromString(tensorflow_serving(server.models).status(asked)).model_version_status
    assert {each.version: each.state for each in told} == found
    assert [each.version for each in told] == sorted(found, reverse=True)
    assert [(each.status.error_code, each.status.error_message) for each in told if each.version == 2] in (
        [], [(13, "it disagrees")],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        pytest.param({"name": "x"}, ModelNotFound, "Could not find any versions of model x", id="model"),
        pytest.param({"version": 9}, ModelNotFound, "Could not find version 9 of model m", id="version"),
        pytest.param({"version": -9}, ModelNotFound, "Could not find version -9 of model m", id="negative-version"),
        pytest.param({"version_label": "canary"}, LabelNotFound, "'canary'", id="label"),
        pytest.param({"name": ""}, InvalidRequest, "no name", id="no-name"),
    ],
)
def test_a_status_that_cannot_be_told_says_why(
    server: InProcessServer, changes: dict[str, object], error: type[RequestError], said: str
) -> None:
    """Unknown models, versions and labels."""
    with pytest.raises(error, match=said):
        tensorflow_serving(server.models).status(
            tfs.GetModelStatusRequest(model_spec=spec(**changes)).SerializeToString()
        )


def test_tensorflow_servings_metadata_has_all_signatures(server: InProcessServer) -> None:
    """Names, types and shapes of every signature that is served."""
    asked = tfs.GetModelMetadataRequest(model_spec=spec(), metadata_field=["signature_def"])
    told = tfs.GetModelMetadataResponse.FromString(
        tensorflow_serving(server.models).metadata(asked.SerializeToString())
    )
    assert told.metadata["signature_def"].type_url.endswith("/tensorflow.serving.SignatureDefMap")
    map_ = tfs.SignatureDefMap.FromString(told.metadata["signature_def"].value).signature_def
    assert sorted(map_) == ["other", "serving_default"]
    info = map_["serving_default"].inputs["x"]
    assert (info.dtype, [dim.size for dim in info.tensor_shape.dim]) == (3, [-1, 2])
    assert sorted(map_["other"].outputs) == ["double"]


@pytest.mark.parametrize("method", unimplemented.handlers())
def test_every_method_that_there_is_not_says_so_in_a_sentence(method: str) -> None:
    """No caller is left with a bare code."""
    with pytest.raises(NotImplementedHere, match=r"\w+ \w+"):
        unimplemented.handlers()[method](b"")


def _odd(batching: Batching) -> Models:
    """Return a table with a model of every kind of shape."""
    specs = (
        TensorSpec("any", BY_NAME["FP32"], None),
        TensorSpec("fixed", BY_NAME["BYTES"], (1, -1, 3)),
        TensorSpec("rows", BY_NAME["COMPLEX64"], (-1,)),
        TensorSpec("scalar", BY_NAME["BOOL"], ()),
    )
    info = ModelInfo("odd", "3", Signature("s", specs, specs), batching=batching)
    with InProcessServer() as server:
        server.models.route("odd", Servable(info, server.executor))
        return server.models


def test_a_model_that_takes_requests_whole_is_described_with_whole_shapes(server: InProcessServer) -> None:
    """No batch and no policy of one; Triton's own words for strings, and none for complex numbers."""
    about = open_inference(server, models=_odd(Batching(WHOLE)))
    asked = triton.ModelConfigRequest(name="odd").SerializeToString()
    config = triton.ModelConfigResponse.FromString(about.config(asked)).config
    assert (config.max_batch_size, config.WhichOneof("scheduling_choice")) == (0, None)
    expected = [("any", 11, [-1]), ("fixed", 13, [1, -1, 3]), ("rows", 0, [-1]), ("scalar", 1, [])]
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == expected
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == expected


def test_an_output_that_all_requests_share_is_described_whole(server: InProcessServer) -> None:
    """The others are described by their rows."""
    about = open_inference(server, models=_odd(Batching(ROWS, shared=frozenset({0, 1, 3}))))
    asked = triton.ModelConfigRequest(name="odd").SerializeToString()
    config = triton.ModelConfigResponse.FromString(about.config(asked)).config
    assert config.max_batch_size == 8
    assert [list(each.dims) for each in config.output] == [[-1], [1, -1, 3], [1], []]


@pytest.mark.parametrize(
    ("batching", "told"),
    [
        pytest.param(Batching(ROWS), "rows", id="rows"),
        pytest.param(Batching(WHOLE), "whole", id="whole"),
        pytest.param(Batching(ROWS, shared=frozenset({0})), "whole", id="shared"),
    ],
)
def test_metadata_tell_whether_a_request_may_be_sent_in_parts(
    server: InProcessServer, batching: Batching, told: str
) -> None:
    """Where an output has no rows, the answers to parts could not be joined."""
    about = open_inference(server, models=_odd(batching))
    asked = oip.ModelMetadataRequest(name="odd").SerializeToString()
    metadata = oip.ModelMetadataResponse.FromString(about.model(asked))
    assert metadata.horngate_batching == told
    assert [(each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("FP32", [-1]), ("BYTES", [1, -1, 3]), ("COMPLEX64", [-1]), ("BOOL", []),
    ]  # fmt: skip


def test_tensorflow_servings_metadata_have_every_kind_of_shape() -> None:
    """Unknown rank as such, a scalar without axes."""
    about = tensorflow_serving(_odd(Batching(WHOLE)))
    request = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "odd"
    told = tfs.GetModelMetadataResponse.FromString(about.metadata(request.SerializeToString()))
    infos = tfs.SignatureDefMap.FromString(told.metadata["signature_def"].value).signature_def["s"].inputs
    assert {name: (each.dtype, each.tensor_shape.unknown_rank) for name, each in infos.items()} == {
        "any": (1, True), "fixed": (7, False), "rows": (8, False), "scalar": (10, False),
    }  # fmt: skip
    assert [dim.size for dim in infos["fixed"].tensor_shape.dim] == [1, -1, 3]
    assert infos["scalar"].HasField("tensor_shape")
    assert not infos["scalar"].tensor_shape.dim


def test_metadata_have_every_signature_that_a_request_may_ask_for(server: InProcessServer) -> None:
    """The default one first, each with what it takes and returns."""
    asked = oip.ModelMetadataRequest(name="m").SerializeToString()
    metadata = oip.ModelMetadataResponse.FromString(open_inference(server).model(asked))
    first, other = metadata.horngate_signatures
    assert (first.name, other.name) == (SIGNATURE.name, "other")
    assert list(first.inputs) == list(other.inputs) == list(metadata.inputs)
    assert [each.name for each in other.outputs] == ["double"]
    assert other.batching == "rows"

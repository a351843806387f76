"""From a folder to an executor: whole versions only, verified against their own answers, warm."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from horngate_protos import tfrecords
from horngate_protos.datatypes import BY_NAME
from horngate_protos.tensorflow_pb2 import TensorProto, TensorShapeProto
from horngate_protos.tensorflow_serving_pb2 import PredictionLog
from horngate_server.core.errors import ModelError
from horngate_server.core.settings import Settings
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.validation import alike
from horngate_server.lifecycle import loader, repository, verification
from horngate_server.lifecycle.loader import Loaded
from support.in_process import FakeModel

X = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, -2.0]], np.float32)


def tensor(array: np.ndarray) -> TensorProto:
    """Make a float32 TensorProto."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in array.shape])
    return TensorProto(dtype=1, tensor_shape=shape, tensor_content=array.tobytes())


def softmax(x: np.ndarray) -> np.ndarray:
    """What the classifier of make_models computes."""
    scores = np.exp(x @ np.array([[1.0, -1.0, 0.5], [2.0, 0.0, 0.25]]))
    result: np.ndarray = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def record(path: Path, answers: np.ndarray | None) -> None:
    """Write a warm-up file with one request and its answer, as TFRecord."""
    log = PredictionLog()
    log.predict_log.request.model_spec.name = "classifier"
    log.predict_log.request.inputs["x"].CopyFrom(tensor(X))
    if answers is not None:
        log.predict_log.response.outputs["probabilities"].CopyFrom(tensor(answers))
    file = path / verification.RECORDS
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(tfrecords.framed(log.SerializeToString()))


def seal(path: Path) -> None:
    """Write the manifest: every file's SHA-256."""
    files = {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file() and file.name != "horngate.json"
    }
    (path / repository.MANIFEST).parent.mkdir(exist_ok=True)
    (path / repository.MANIFEST).write_text(json.dumps({"files": files}))


@pytest.fixture
def version(foreign_models: Path, tmp_path: Path) -> Path:
    """A copy of the classifier that a test may damage."""
    path = tmp_path / "classifier" / "1"
    shutil.copytree(foreign_models / "classifier" / "1", path)
    return path


def load(path: Path, verify: str = "strict") -> Loaded:
    """Load this version."""
    settings = Settings(verify=verify, max_batch_rows=16)
    loaded = loader.load(
        path, settings, settings.limits, finish=lambda *_: None, clock=time.monotonic, on_death=lambda _: None
    )
    loaded.executor.close()
    return loaded


def test_a_foreign_model_is_served_as_unverified(version: Path) -> None:
    """Neither manifest nor recorded answers are needed; the metadata says that they are missing."""
    loaded = load(version)
    assert loaded.report.verification == "unverified: it has no recorded answers"
    assert loaded.info.version == "1"


def test_every_rung_is_warm_and_measured_before_the_first_request(version: Path) -> None:
    """The costs of all batch sizes are known when loading ends."""
    assert [rung.rows for rung in load(version).report.rungs] == [1, 2, 4, 8, 16]


def test_a_model_that_reproduces_its_recorded_answers_is_verified(version: Path) -> None:
    """The requests are replayed and the answers agree; callers may have them."""
    record(version, softmax(X))
    seal(version)
    loaded = load(version)
    assert loaded.report.verification == "verified (3 rows)"
    assert [each["x"].tolist() for each in loaded.served().recorded] == [X.tolist()]


def test_a_model_that_disagrees_with_its_recorded_answers_is_refused_with_the_worst_example(version: Path) -> None:
    """Right shapes, wrong answers: strict refuses and names the row, warn serves and says so, off does not ask."""
    wrong = softmax(X)
    wrong[2] = wrong[2][::-1]
    record(version, wrong)
    seal(version)
    with pytest.raises(ModelError, match=r"disagrees with its recorded answers: probabilities\S* of recorded row 2 is"):
        load(version)
    assert load(version, verify="warn").report.verification.startswith("failed: it disagrees")
    assert load(version, verify="off").report.verification == "unverified: --verify off"


def test_recorded_requests_without_answers_prove_nothing(version: Path) -> None:
    """TensorFlow Serving's own warm-up files hold requests only: such a model stays unverified."""
    record(version, None)
    assert load(version).report.verification == "unverified: its recorded requests have no answers"


def test_a_damaged_warm_up_file_is_noticed(version: Path) -> None:
    """A flipped byte in a record is found by its checksum."""
    record(version, softmax(X))
    file = version / verification.RECORDS
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="damaged at byte 0: not a whole TFRecord"):
        load(version)


def test_a_manifest_vouches_only_for_the_files_that_it_lists(version: Path) -> None:
    """A warm-up file that came after the manifest was written is held against its own checksums."""
    seal(version)
    record(version, softmax(X))
    file = version / verification.RECORDS
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="damaged at byte 0: not a whole TFRecord"):
        load(version)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "graph"])
def test_a_version_that_is_not_whole_is_refused_with_the_file_named(version: Path, damage: str) -> None:
    """Flipped bytes, truncation and missing files are found before TensorFlow sees them."""
    seal(version)
    file = version / "variables" / "variables.data-00000-of-00001"
    data = file.read_bytes()
    said = {
        "flip": "variables.data.*its SHA-256 differs",
        "truncate": "variables.data.*its SHA-256 differs",
        "remove": "lacks variables/variables.data",
        "manifest": "is not JSON",
        "graph": "has no saved_model.pb",
    }[damage]
    match damage:
        case "flip":
            file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "truncate":
            file.write_bytes(data[:-1])
        case "remove":
            file.unlink()
        case "manifest":
            (version / repository.MANIFEST).write_text("{")
        case "graph":
            (version / "saved_model.pb").unlink()
    with pytest.raises(ModelError, match=said):
        load(version)


def test_versions_are_found_in_numerical_order_and_other_folders_are_not_versions(tmp_path: Path) -> None:
    """TensorFlow Serving's layout: integers only, 10 is newer than 9, hidden and unfinished folders do not count."""
    for name in ("m/9", "m/10", "m/latest", "m/.11.partial", "m/-1", "empty", ".hidden/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "m/12").write_text("a file")
    found = repository.look(tmp_path)
    assert found.models == {"m": {9: tmp_path / "m/9", 10: tmp_path / "m/10"}}
    assert not found.ignored


def test_a_root_that_cannot_be_read_is_said_plainly(tmp_path: Path) -> None:
    """The flag and the reason are named."""
    with pytest.raises(ModelError, match="--models .*nowhere: No such file or directory"):
        repository.look(tmp_path / "nowhere")


def test_every_signature_is_warm_and_in_the_report(foreign_models: Path, tmp_path: Path) -> None:
    """Not only the default one: each has been run at every batch size, and labels are read where there are some."""
    path = tmp_path / "signatures/1"
    shutil.copytree(foreign_models / "signatures/1", path)
    (path / "assets.extra").mkdir()
    (path / "assets.extra/labels.txt").write_text("zero\none\n")
    loaded = load(path)
    assert loaded.report.signatures == {
        "mean": "(x FP32[?,2]) -> (outputs FP32[?])",
        "words": "(x BYTES[?]) -> (y BYTES[?])",
    }
    assert "             mean (x FP32[?,2]) -> (outputs FP32[?])" in loaded.report.lines()
    for info in loaded.infos.values():
        kind = alike(info.signature, [spec.row for spec in info.signature.inputs], whole=False)
        assert list(loaded.executor.costs.report(kind)) == [1, 2, 4, 8, 16]
    assert {tuple(info.labels) for info in loaded.infos.values()} == {("zero", "one")}
    (path / "assets.extra/labels.txt").write_bytes(b"\xff")
    with pytest.raises(ModelError, match="labels.txt cannot be read"):
        load(path)


def test_a_lone_file_and_a_lone_folder_are_versions(trained: Path, tmp_path: Path) -> None:
    """Wherever they lie, under their own names; what is in no folder has no recorded answers."""
    shutil.copy(trained / "model.tflite", tmp_path / "cat.tflite")
    lone = loader.inspect(tmp_path / "cat.tflite", Settings())
    assert (lone.name, lone.version, lone.engine, lone.proved) == ("cat", 1, "litert", True)
    assert lone.verification.startswith("unverified")
    wine = loader.inspect(shutil.copytree(trained, tmp_path / "wine"), Settings(engine="litert"))
    assert (wine.name, wine.version) == ("wine", 1)
    assert wine.verification.startswith("verified")
    (tmp_path / "x.keras").touch()
    with pytest.raises(ModelError, match=r"`horngate-trainer import \S+/x.keras --name x`"):
        loader.inspect(tmp_path / "x.keras", Settings())


@pytest.mark.parametrize(("allowed", "refused"), [(0.2, False), (0.05, True), (None, False)])
def test_recorded_attributions_sum_to_what_they_explain(allowed: float | None, refused: bool) -> None:
    """As near as the manifest says; where it says nothing, nothing is checked."""
    floats = BY_NAME["FP32"]
    names = {"attributions": (-1, 2), "baseline_score": (-1,), "score": (-1,)}
    outputs = tuple(TensorSpec(name, floats, shape) for name, shape in names.items())
    explain = Signature("explain", (TensorSpec("x", floats, (-1, 2)),), outputs)
    answers = [np.array([[0.3, 0.2]], np.float32), np.array([0.1], np.float32), np.array([0.7], np.float32)]
    manifest = {"explanation": {"signature": "explain", "gap": {"tolerance": allowed}}}
    version = repository.Version("m", 1, Path(), manifest, "")
    recorded = [verification.Record([np.ones((1, 2), np.float32)], answers)]
    if refused:
        with pytest.raises(ModelError, match=r"miss 0\.1 of what they explain; the manifest allows 0\.05"):
            verification._check_gaps(version, explain, recorded)
    else:
        verification._check_gaps(version, explain, recorded)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"atol": 0.3, "argmax_agreement": 0.5}, "", id="half-of-the-classes"),
        pytest.param({"atol": 0.3, "argmax_agreement": 0.9}, "1 of 2 decisions are the same.*90.0%", id="too-few"),
        pytest.param({"atol": 0.1, "argmax_agreement": 0.5}, "scores of recorded row 1", id="too-far"),
        pytest.param({"atol": 0.3}, "scores of recorded row 1", id="every-class"),
        pytest.param({"atol": "near"}, "expected numbers for atol, rtol, argmax_agreement", id="no-number"),
        pytest.param([1], "expected numbers for atol", id="no-table"),
    ],
)
def test_a_quantized_file_may_differ_as_far_as_its_manifest_says(given: object, said: str) -> None:
    """Values within a tolerance of its own, and the stated share of classes."""
    scores = TensorSpec("scores", BY_NAME["FP32"], (-1, 2))
    model = FakeModel(Signature("serving_default", (TensorSpec("x", BY_NAME["FP32"], (-1, 2)),), (scores,)))
    model.compute = lambda inputs: [inputs[0].astype(np.float32)]
    computed = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    recorded = {"serving_default": [verification.Record([computed], [np.array([[0.9, 0.1], [0.6, 0.4]], np.float32)])]}
    version = repository.Version("m", 1, Path(), {"formats": {"litert": {"tolerance": given}}}, "")
    if said:
        with pytest.raises(ModelError, match=said):
            verification.verify(version, model, recorded, {}, "litert")
    else:
        assert verification.verify(version, model, recorded, {}, "litert") == "verified (2 rows)"

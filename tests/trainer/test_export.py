"""Exports: signature, golden answers, manifest, atomic publication."""

import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from horngate_protos.tensorflow_serving_pb2 import PredictionLog
from horngate_trainer import ExportError, VerificationError, export, publish
from horngate_trainer.savedmodel import Servable
from support.versions import check_whole

pytestmark = pytest.mark.slow

ZYGOTE = Path(__file__).with_name("exporting_zygote.py")


def classifier() -> Any:
    """A tiny image classifier."""
    return keras.Sequential(
        [keras.Input((4, 4), name="images"), keras.layers.Flatten(), keras.layers.Dense(3, "softmax", name="scores")]
    )


def records(version: Path) -> list[PredictionLog]:
    """Read the warm-up file."""
    dataset = tf.data.TFRecordDataset(str(version / "assets.extra/tf_serving_warmup_requests"))
    return [PredictionLog.FromString(record.numpy()) for record in dataset]


def test_an_image_classifier_takes_bytes_and_answers_probabilities_and_classes(tmp_path: Path) -> None:
    """uint8 in, the scaling in the graph, the classes beside the scores."""
    model = classifier()
    version = export(
        model, tmp_path, name="tiny", dtypes={"images": "uint8"}, divisors={"images": 255}, classes_of="scores"
    )
    assert version == tmp_path / "tiny" / "1"
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    assert served.structured_input_signature[1]["images"] == tf.TensorSpec([None, 4, 4], tf.uint8, "images")
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4), np.uint8)
    answer = served(images=tf.constant(images))
    expected = model.predict(images / np.float32(255), verbose=0)
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-5)
    assert answer["classes"].numpy().tolist() == expected.argmax(axis=1).tolist()
    assert answer["classes"].dtype == tf.int64


def test_the_manifest_lists_every_file_and_the_versions_that_made_it(tmp_path: Path) -> None:
    """Digests, tolerance, library versions; what is not known is null."""
    manifest = check_whole(export(classifier(), tmp_path, name="tiny"))
    assert manifest["schema"] == 1
    assert manifest["versions"]["tensorflow"] == tf.__version__
    assert set(manifest["tolerance"]) == {"atol", "rtol"}
    assert manifest["evaluation"] is None


def test_equal_models_are_equal_files_whatever_the_process_did_before(tmp_path: Path) -> None:
    """Functions have no numbers from the process's life, and no file has a random one; loops and branches included."""
    rows = keras.Input((5, 2), name="rows")
    model = keras.Model(rows, keras.layers.Dense(2)(keras.layers.LSTM(3, unroll=False)(rows)))
    first = export(model, tmp_path, name="tiny")
    for number in range(3):
        tf.function(lambda value, number=number: value + number)(tf.constant(number))
    second = export(model, tmp_path, name="tiny")
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert files == {path.relative_to(second) for path in second.rglob("*") if path.is_file()}
    differing = {path.name for path in files if (first / path).read_bytes() != (second / path).read_bytes()}
    assert differing == {"horngate.json"}
    served = tf.saved_model.load(str(first)).signatures["serving_default"]
    (answer,) = served(rows=tf.ones((2, 5, 2))).values()
    np.testing.assert_allclose(answer, model.predict(np.ones((2, 5, 2)), verbose=0), rtol=1e-4)


def test_golden_requests_hold_the_answers_of_the_written_model(tmp_path: Path) -> None:
    """One, seven and thirty-two rows, each with the response that a server must give."""
    examples = np.random.default_rng(1).random((50, 4, 4), np.float32)
    model = classifier()
    logs = records(export(model, tmp_path, name="tiny", examples={"images": examples}))
    sizes = []
    for log in logs:
        request, response = log.predict_log.request, log.predict_log.response
        assert (request.model_spec.name, request.model_spec.signature_name) == ("tiny", "serving_default")
        shape = [dim.size for dim in request.inputs["images"].tensor_shape.dim]
        given = np.frombuffer(request.inputs["images"].tensor_content, np.float32).reshape(shape)
        recorded = np.frombuffer(response.outputs["scores"].tensor_content, np.float32).reshape(-1, 3)
        np.testing.assert_allclose(recorded, model.predict(given, verbose=0), rtol=1e-4, atol=1e-6)
        sizes.append(len(given))
    assert sizes == [1, 7, 32]


def test_any_keras_model_can_be_exported(tmp_path: Path) -> None:
    """Two inputs of different types, two outputs by the keys of a dict."""
    a = keras.Input((3,), name="a")
    b = keras.Input((2, 2), name="b", dtype="int32")
    joined = keras.layers.Concatenate()([a, keras.layers.Flatten()(keras.ops.cast(b, "float32"))])
    model = keras.Model([a, b], {"left": keras.layers.Dense(2)(joined), "right": keras.layers.Dense(1)(joined)})
    version = export(model, tmp_path, name="several")
    check_whole(version)
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    assert {name: spec.dtype for name, spec in signature.structured_input_signature[1].items()} == {
        "a": tf.float32, "b": tf.int32,
    }  # fmt: skip
    assert set(signature.structured_outputs) == {"left", "right"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"name": "../up"}, "plain folder name", id="name"),
        pytest.param({"name": "m", "dtypes": {"pictures": "uint8"}}, "dtypes names 'pictures'", id="input"),
        pytest.param({"name": "m", "classes_of": "nothing"}, "classes_of='nothing'", id="output"),
        pytest.param({"name": "m", "examples": {"images": np.zeros((2, 5, 5), "f")}}, "examples for", id="shape"),
        pytest.param({"name": "m", "examples": {"images": np.zeros((0, 4, 4), "f")}}, "at least one", id="rows"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_published(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    """The message says what was expected; the model's folder stays empty."""
    with pytest.raises(ExportError, match=said):
        export(classifier(), tmp_path, **options)
    assert not list(tmp_path.rglob("saved_model.pb"))


def test_a_written_model_that_computes_something_else_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are read back and held against the Keras model before anyone sees them."""
    monkeypatch.setattr(
        Servable, "predict", lambda _, tensors: {"scores": np.full((len(tensors["images"]), 3), 0.5, "f")}
    )
    with pytest.raises(VerificationError, match="does not compute what the original computes: scores"):
        export(classifier(), tmp_path, name="tiny")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == []


def test_versions_count_up_and_other_folders_do_not_matter(tmp_path: Path) -> None:
    """The next version is one above the highest, whatever else lies there."""
    for name in ("9", "10", "latest", "-3"):
        (tmp_path / "tiny" / name).mkdir(parents=True)
    assert export(classifier(), tmp_path, name="tiny").name == "11"


def test_a_root_that_cannot_be_written_is_an_export_error(tmp_path: Path) -> None:
    """A file where a folder should be: one clear line."""
    (tmp_path / "root").write_text("")
    with pytest.raises(ExportError, match="cannot write to"):
        export(classifier(), tmp_path / "root", name="tiny")


def test_a_full_disk_is_an_export_error_and_publishes_nothing(tmp_path: Path) -> None:
    """The file system says no in the middle of the weights: an error, no version, and nothing left behind."""
    script = (
        "import resource, signal, keras\n"
        "from horngate_trainer import ExportError, export\n"
        "model = keras.Sequential([keras.Input((8,), name='x'), keras.layers.Dense(300), keras.layers.Dense(300)])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        f"    export(model, {str(tmp_path)!r}, name='m')\n"
        "except ExportError as error:\n"
        "    print('ExportError', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=100)
    assert "ExportError cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert list((tmp_path / "m").iterdir()) == []


def test_two_exporters_at_once_publish_two_versions(tmp_path: Path) -> None:
    """Neither overwrites the other, and neither takes the other's unfinished files away."""
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        with publish.staging(tmp_path / "m") as staging:
            (staging.path / "file").write_text(str(number))
            barrier.wait(20)
            staging.publish({})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = sorted(int(path.name) for path in (tmp_path / "m").iterdir())
    assert versions == list(range(1, 9))
    assert sorted((tmp_path / "m" / str(v) / "file").read_text() for v in versions) == [str(n) for n in range(8)]


def test_what_a_dead_exporter_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """Hidden folders without a living owner go; versions stay."""
    (tmp_path / "tiny" / ".partial-1-dead" / "variables").mkdir(parents=True)
    export(classifier(), tmp_path, name="tiny")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["1"]


@pytest.mark.timeout(150)
def test_kill_nine_at_six_random_moments_leaves_no_version_or_a_whole_one(tmp_path: Path) -> None:
    """Whenever an export is killed, a reader finds complete versions only, and the next export works."""
    with subprocess.Popen(
        [sys.executable, ZYGOTE, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as zygote:
        assert zygote.stdin
        assert zygote.stdout

        def begin() -> int:
            """Fork an exporter; return its process id once its export has begun."""
            assert zygote.stdin
            assert zygote.stdout
            zygote.stdin.write("export\n")
            zygote.stdin.flush()
            return int(zygote.stdout.readline())

        def ended() -> str:
            assert zygote.stdout
            return zygote.stdout.readline().strip()

        durations = []
        for _ in range(2):
            begin()
            began = time.monotonic()
            assert ended() == "exit 0"
            durations.append(time.monotonic() - began)
        moments = random.Random(2026)
        outcomes = []
        for _ in range(6):
            before = len(versions(tmp_path))
            child = begin()
            killer = threading.Timer(moments.uniform(0, min(durations)), os.kill, (child, signal.SIGKILL))
            killer.start()
            how = ended()
            killer.cancel()
            killer.join()
            for version in versions(tmp_path):
                check_whole(version)
            outcomes.append((how, len(versions(tmp_path)) - before))
        zygote.stdin.close()
        assert zygote.wait(30) == 0
    assert {grown for _, grown in outcomes} <= {0, 1}
    assert sum(how == "signal 9" for how, _ in outcomes) >= 2, outcomes
    assert ("exit 0", 0) not in outcomes


def versions(root: Path) -> list[Path]:
    """Return what a server would take for versions."""
    return sorted(path for path in (root / "tiny").iterdir() if path.name.isdigit())


def test_the_warm_up_file_is_made_of_tfrecords_that_others_can_read(tmp_path: Path) -> None:
    """Length, checksum, payload, checksum: the first record's length field matches its payload."""
    version = export(classifier(), tmp_path, name="tiny")
    data = (version / "assets.extra/tf_serving_warmup_requests").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert PredictionLog.FromString(data[12 : 12 + length]) == records(version)[0]

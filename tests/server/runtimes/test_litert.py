"""Real .tflite models through LiteRT's C library."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_server.core.errors import DeviceUnavailable, InputRefused, ModelError, OutOfMemory
from horngate_server.core.model import Model
from horngate_server.runtimes import litert, process_memory, tensorflow
from horngate_server.runtimes.litert import file, model

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not litert.available(), reason="ai-edge-litert is not installed")]


@pytest.fixture(scope="session")
def lite_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with model.tflite, most beside the SavedModel that it was made from."""
    root = tmp_path_factory.mktemp("lite")
    script = Path(__file__).parents[2] / "support" / "make_lite_models.py"
    subprocess.run([sys.executable, script, root], check=True, capture_output=True, timeout=200)
    return root


def run(served: Model, *arrays: Any, signature: str = "") -> list[Any]:
    """Feed arrays to a signature, and return its outputs."""
    chosen = served.signatures[signature] if signature else served.signature
    feed = served.feed(chosen, [array.shape for array in arrays])
    for memory, array in zip(feed.arrays, arrays, strict=True):
        memory[...] = array
    return list(served.run(feed))


def sizes(count: int) -> Iterator[int]:
    """Numbers of rows, up and down, mostly small ones."""
    rng = np.random.default_rng(11)
    yield from (1, 2, 1, 64, 63, 65, 1)
    for _ in range(count):
        yield int(2 ** rng.uniform(0, 8))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_every_number_of_rows_is_answered_as_tensorflow_answers_it(lite_models: Path, name: str) -> None:
    """Also behind a computed shape, where LiteRT itself does not know how many rows come out."""
    lite, reference = litert.load(lite_models / name), tensorflow.load(lite_models / name)
    rng = np.random.default_rng(5)
    for rows in sizes(300):
        images = rng.random((rows, 28, 28), np.float32)
        (mine,), (theirs,) = run(lite, images), run(reference, images)
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() < 1e-5
    assert run(lite, np.empty((0, 28, 28), np.float32))[0].shape == (0, 10)
    lite.close()
    reference.close()


def test_several_inputs_and_outputs_are_computed_by_name(lite_models: Path) -> None:
    """LiteRT counts them in the graph's order; ours is by name. An output may be an input as it came."""
    lite, reference = litert.load(lite_models / "two"), tensorflow.load(lite_models / "two")
    assert str(lite.signature) == str(reference.signature)
    rng = np.random.default_rng(5)
    for rows in sizes(40):
        a, b = rng.random((rows, 3), np.float32), rng.integers(0, 255, (rows, 2), np.uint8)
        for mine, theirs in zip(run(lite, a, b), run(reference, a, b), strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    with pytest.raises(InputRefused, match=r"different numbers of rows: \[2, 3\]"):
        run(lite, a[:1].repeat(2, 0), b[:1].repeat(3, 0))
    lite.close()
    reference.close()


def test_every_signature_is_served_and_without_any_the_tensors_have_their_own_names(lite_models: Path) -> None:
    """Each keeps its own number of rows; the default is chosen as with TensorFlow."""
    lite = litert.load(lite_models / "signatures")
    rows = np.array([[1, 3], [5, 7]], np.float32)
    assert run(lite, rows, signature="mean")[0].tolist() == [2, 6]
    assert run(lite, rows[:1], signature="twice")[0].tolist() == [[2, 6]]
    assert run(lite, rows, signature="mean")[0].tolist() == [2, 6]
    assert lite.signature.name == "mean"
    lite.close()
    assert litert.load(lite_models / "signatures", signature="twice").signature.name == "twice"
    with pytest.raises(ModelError, match="has no signature nope; it has: mean, twice"):
        litert.load(lite_models / "signatures", signature="nope")
    bare = litert.load(lite_models / "bare")
    assert str(bare.signature) == "(x FP32[?,2]) -> (Identity FP32[?,2])"
    assert bare.signature.name == "serving_default"
    assert run(bare, rows)[0].tolist() == [[3, 9], [15, 21]]
    assert run(bare, rows[:1])[0].tolist() == [[3, 9]]
    bare.close()


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "int16", "int32", "int64", "float32"])
def test_every_datatype_goes_in_and_comes_out_unchanged(lite_models: Path, kind: str) -> None:
    """The numbers that files have for types are not those that memory has."""
    lite = litert.load(lite_models / f"type_{kind}")
    given = np.array([[0, 1, 0], [1, 1, 0]], kind) if kind == "bool" else np.array([[1, 2, 3], [4, 5, 127]], kind)
    (came,) = run(lite, given)
    assert came.dtype == given.dtype
    assert came.tolist() == np.concatenate([given, given], 1).tolist()
    lite.close()


def test_half_floats_fixed_batches_and_quantised_models_are_served(lite_models: Path) -> None:
    """A fixed batch has no free axis; int8 in and out are INT8 tensors."""
    half = litert.load(lite_models / "half")
    assert run(half, np.array([[1, 2, 3]], np.float16))[0].tolist() == [[2, 4, 6]]
    fixed = litert.load(lite_models / "fixed")
    assert str(fixed.signature) == "(x FP32[1,28,28]) -> (y FP32[1])"
    assert run(fixed, np.ones((1, 28, 28), np.float32))[0].tolist() == [784]
    int8 = litert.load(lite_models / "int8")
    assert [spec.datatype.name for spec in (*int8.signature.inputs, *int8.signature.outputs)] == ["INT8", "INT8"]
    batch = np.random.default_rng(2).integers(-128, 127, (9, 8), np.int8)
    together = run(int8, batch)[0]
    assert together.tolist() == [run(int8, row[None])[0][0].tolist() for row in batch]
    for each in (half, fixed, int8):
        each.close()


def test_free_axes_of_inputs_may_have_any_length(lite_models: Path) -> None:
    """Height and width change from run to run; one too small for the model is the input's fault, and the next runs."""
    lite, reference = litert.load(lite_models / "free"), tensorflow.load(lite_models / "free")
    rng = np.random.default_rng(5)
    for shape in ((1, 8, 9, 3), (3, 20, 4, 3), (2, 8, 9, 3), (1, 3, 3, 3)):
        image = rng.random(shape, np.float32)
        np.testing.assert_allclose(run(lite, image)[0], run(reference, image)[0], atol=1e-5)
    with pytest.raises(InputRefused):
        run(lite, np.zeros((1, 0, 9, 3), np.float32))
    np.testing.assert_allclose(run(lite, image)[0], run(reference, image)[0], atol=1e-5)
    lite.close()
    reference.close()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("positive", "as many rows as the values make"),
        ("where", "as many rows as the values make"),
        ("repeated", "as many rows as the values make"),
        ("doubled", r"output 'y' came back as \[4, 2\]; for this batch the signature says \[2, 2\]"),
        ("wide", "an axis whose length is known only once it is computed"),
        ("words", "x has the type STRING, which this engine does not serve"),
        ("flex", "it needs FlexMatrixInverse, which LiteRT does not have"),
    ],
)
def test_what_cannot_be_served_safely_is_refused_with_the_reason(lite_models: Path, name: str, why: str) -> None:
    """LiteRT writes past memory that is too small: an output must have as many rows as the input."""
    with pytest.raises(ModelError, match=f"{name}/model.tflite cannot be loaded: signature serving_default: .*{why}"):
        litert.load(lite_models / name)


def test_a_signature_that_is_not_what_it_says_is_left_out(lite_models: Path) -> None:
    """The others are served, and the log has the reason."""
    lite = litert.load(lite_models / "partly", signature="good")
    assert list(lite.signatures) == ["good"]
    assert "came back as [4, 2]" in lite.refused["bad"]
    assert run(lite, np.ones((3, 2), np.float32))[0].tolist() == [[2, 2]] * 3
    lite.close()
    with pytest.raises(ModelError, match=r"signature bad: output 'y' came back as"):
        litert.load(lite_models / "partly", signature="bad")


def test_what_the_model_refuses_is_said_in_its_words_and_the_next_run_works(lite_models: Path) -> None:
    """An index out of range is the input's fault."""
    lite = litert.load(lite_models / "gather")
    for _ in range(3):
        with pytest.raises(InputRefused, match="the model refuses this input: gather index out of bounds"):
            run(lite, np.array([1, 99], np.int32))
        assert run(lite, np.array([1, 9, 2], np.int32))[0].tolist() == [3, 27, 6]
    lite.close()


def test_results_stay_what_they_were_and_feeds_are_used_again(
    lite_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One feed for each power of two; a large one is used once, and its arrays go with it."""
    lite = litert.load(lite_models / "bare")
    (first,) = run(lite, np.ones((3, 2), np.float32))
    feed = lite.feed(lite.signature, [(4, 2)])
    assert lite.feed(lite.signature, [(3, 2)]) is feed
    feed.arrays[0][:] = 7
    assert lite.run(feed)[0].tolist() == [[21, 21]] * 3
    assert first.tolist() == [[3, 3]] * 3
    monkeypatch.setattr(model, "KEPT_FEED_BYTES", 8)
    large = lite.feed(lite.signature, [(9, 2)])
    large.arrays[0][:] = 1
    assert lite.run(large)[0].tolist() == [[3, 3]] * 9
    assert not large.arrays
    lite.close()
    lite.close()


def test_more_memory_than_there_is_is_an_error_of_that_request(lite_models: Path) -> None:
    """What cannot be allocated raises OutOfMemory; the next run works."""
    lite = litert.load(lite_models / "bare")
    with pytest.raises(OutOfMemory, match="no memory for a batch"):
        lite.feed(lite.signature, [(1 << 60, 2)])
    assert run(lite, np.ones((1, 2), np.float32))[0].tolist() == [[3, 3]]
    lite.close()
    script = (
        "import resource, sys; from pathlib import Path; from horngate_server.runtimes import litert;"
        "from horngate_server.core.errors import OutOfMemory; lite = litert.load(Path(sys.argv[1]));"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "feed = lite.feed(lite.signature, [(150_000, 28, 28)])\n"
        "try: lite.run(feed)\n"
        "except OutOfMemory: print(lite.run(lite.feed(lite.signature, [(2, 28, 28)]))[0].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, lite_models / "cnn"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("(2, 10)\n", 0), done.stderr


def test_a_gpu_and_a_missing_file_are_refused_in_words(lite_models: Path) -> None:
    """The flag, or the file, is named."""
    with pytest.raises(DeviceUnavailable, match="--device gpu, but LiteRT computes on the CPU"):
        litert.load(lite_models / "mlp", device="gpu")
    with pytest.raises(ModelError, match=r"nowhere/model\.tflite cannot be read"):
        litert.load(lite_models / "nowhere")
    loaded = litert.load(lite_models / "mlp", device="cpu", threads=2)
    assert (loaded.device.kind, loaded.device.why) == ("CPU", "LiteRT computes on the CPU, with XNNPACK")
    assert loaded.engine == "litert"
    loaded.close()


def test_damaged_files_are_refused_in_words(lite_models: Path, tmp_path: Path) -> None:
    """Whatever bytes are changed or missing, reading ends with an answer or a ModelError."""
    rng = np.random.default_rng(7)
    for name in ("bare", "two", "signatures"):
        whole = (lite_models / name / "model.tflite").read_bytes()
        for _ in range(1500):
            mangled = bytearray(whole[: rng.integers(0, len(whole))] if rng.random() < 0.2 else whole)
            for place in rng.integers(0, len(mangled) or 1, rng.integers(1, 8)):
                if mangled:
                    mangled[place] = (0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(0, 256)))[rng.integers(0, 6)]
            try:
                file.read(memoryview(mangled))
            except ModelError:
                continue
    for text in (b"", b"no model", b"\0\0\0\0TFL3"):
        (tmp_path / "model.tflite").write_bytes(text)
        with pytest.raises(ModelError, match="model.tflite"):
            litert.load(tmp_path)


def test_other_threads_run_while_a_batch_is_computed(lite_models: Path) -> None:
    """The GIL is free during a run: another thread gets it then, and only then."""
    lite = litert.load(lite_models / "cnn")
    feed = lite.feed(lite.signature, [(2000, 28, 28)])
    feed.arrays[0][:] = 0.5
    began, ran = threading.Event(), threading.Event()

    def answer() -> None:
        began.wait()
        ran.set()

    other = threading.Thread(target=answer)
    other.start()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody takes the GIL from this thread: it must give it away
    try:
        began.set()
        before = ran.is_set()
        lite.run(feed)
        assert (before, ran.is_set()) == (False, True)
    finally:
        sys.setswitchinterval(switch)
        other.join()
    lite.close()


def test_loading_and_running_leaves_no_memory_behind(lite_models: Path) -> None:
    """A thousand loads, and ten thousand runs of changing sizes."""
    row = np.ones((3, 2), np.float32)
    for _ in range(50):
        litert.load(lite_models / "bare").close()
    before = process_memory.resident()
    for _ in range(1000):
        litert.load(lite_models / "bare").close()
    lite = litert.load(lite_models / "bare")
    for number in range(10_000):
        run(lite, row[: 1 + number % 3])
    lite.close()
    assert process_memory.resident() - before < 8 << 20

"""Real SavedModels through TensorFlow's C library."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from horngate_protos.datatypes import DATATYPES
from horngate_server import runtime
from horngate_server.errors import DeviceUnavailable, ModelError, ModelFailed
from horngate_server.runtime import saved_model


def test_several_inputs_and_outputs_are_computed_by_name(foreign_models: Path) -> None:
    """Feeds and fetches follow the signature's names, sorted."""
    model = runtime.load(foreign_models / "several" / "2")
    assert str(model.signature) == "(a UINT8[?,2], b FP32[?,2]) -> (many INT64[?,2], sum FP32[?,2])"
    feed = model.feed(model.signature, [(3, 2), (3, 2)])
    feed.arrays[0][:] = [[1, 2], [3, 4], [5, 6]]
    feed.arrays[1][:] = 0.5
    many, total = model.run(feed)
    assert many.tolist() == [[10, 20], [30, 40], [50, 60]]
    assert total.tolist() == [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]]
    model.close()


def test_every_signature_that_can_be_served_is(foreign_models: Path) -> None:
    """Each has its own inputs and outputs in the one graph; one of strings is left out, and the others serve."""
    model = runtime.load(foreign_models / "signatures" / "1")
    assert list(model.signatures) == ["serving_default", "mean"]
    results = {}
    for name, signature in model.signatures.items():
        feed = model.feed(signature, [(2, 2)])
        feed.arrays[0][:] = [[1, 3], [5, 7]]
        results[name] = [array.tolist() for array in model.run(feed)]
    assert results == {"serving_default": [[[2, 6], [10, 14]]], "mean": [[2, 6]]}
    assert model.signatures["mean"].inputs[0].tensor == "mean_x:0"
    model.close()


def test_every_datatype_of_the_protocol_goes_in_and_comes_out_unchanged(foreign_models: Path) -> None:
    """BOOL, all integers and all floats, BF16 as its sixteen bits."""
    model = runtime.load(foreign_models / "every" / "1")
    assert sorted(spec.datatype.name for spec in model.signature.inputs) == sorted(each.name for each in DATATYPES)
    feed = model.feed(model.signature, [(4, 3)] * len(DATATYPES))
    rng = np.random.default_rng(7)
    for array in feed.arrays:
        flat = array.reshape(-1).view(np.uint8)
        flat[:] = rng.integers(0, 2, flat.size) if array.dtype == np.bool_ else rng.integers(0, 100, flat.size)
    results = model.run(feed)
    for spec, given, came in zip(model.signature.inputs, feed.arrays, results, strict=True):
        assert came.dtype == spec.datatype.numpy
        assert came.tobytes() == given.tobytes(), spec
    model.close()


def test_results_stay_what_they_were_when_the_memory_is_used_again(foreign_models: Path) -> None:
    """Outputs are copies: filling the same feed for the next batch does not change them."""
    model = runtime.load(foreign_models / "free" / "1")
    feed = model.feed(model.signature, [(2, 3)])
    feed.arrays[0][:] = 1
    (first,) = model.run(feed)
    again = model.feed(model.signature, [(2, 3)])
    assert again is feed
    again.arrays[0][:] = 7
    assert model.run(again)[0].tolist() == [21, 21]
    assert first.tolist() == [3, 3]
    model.close()


def test_large_batches_are_not_kept_in_memory(foreign_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed above the limit is freed after its run; the next one is new."""
    monkeypatch.setattr(saved_model, "KEPT_FEED_BYTES", 8)
    model = runtime.load(foreign_models / "free" / "1")
    feed = model.feed(model.signature, [(2, 3)])
    feed.arrays[0][:] = 1
    assert model.run(feed)[0].tolist() == [3, 3]
    assert not feed.arrays
    assert model.feed(model.signature, [(2, 3)]) is not feed
    model.close()


def test_an_error_while_computing_is_said_in_tensorflows_words_and_the_session_goes_on(foreign_models: Path) -> None:
    """A failing run raises ModelFailed; the next one works."""
    model = runtime.load(foreign_models / "fails" / "1")
    feed = model.feed(model.signature, [(1, 1)])
    feed.arrays[0][:] = np.nan
    with pytest.raises(ModelFailed, match="not a number in the batch"):
        model.run(feed)
    feed.arrays[0][:] = 2.0
    assert model.run(feed)[0].tolist() == [[4.0]]
    model.close()
    model.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fixed/1", r"input x has shape \[4, 2\]; the first axis must be a batch of any length"),
        ("strings/1", "input x has TensorFlow type 7, which cannot be served"),
        ("nowhere/1", "cannot be loaded"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(foreign_models: Path, name: str, said: str) -> None:
    """Models without a batch axis, with strings, or without files do not load."""
    with pytest.raises(ModelError, match=said):
        runtime.load(foreign_models / name)


def test_a_demanded_gpu_that_is_not_there_is_an_error_with_the_reason(foreign_models: Path) -> None:
    """--device gpu never falls back in silence; auto does, and says why."""
    if runtime.load(foreign_models / "free" / "1").device.kind == "GPU":
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceUnavailable, match="--device gpu, but TensorFlow can use none: .*NVIDIA"):
        runtime.load(foreign_models / "free" / "1", device="gpu")
    assert runtime.load(foreign_models / "free" / "1", device="cpu").device.why == "--device cpu"


def test_pages_that_only_loading_needed_are_given_back_and_the_model_computes_on(foreign_models: Path) -> None:
    """More than 100 MB of the libraries leave the process's memory; what serving needs comes back by itself."""
    script = (
        "import re; from pathlib import Path; from horngate_server import runtime;"
        "rss = lambda: int(re.search(r'VmRSS:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024;"
        f"model = runtime.load(Path({str(foreign_models / 'free' / '1')!r}));"
        "before = rss(); released = runtime.release_pages(); after = rss();"
        "feed = model.feed(model.signature, [(1, 2)]); feed.arrays[0][:] = 3;"
        "print(released > 10**8, before - after > 10**8, model.run(feed)[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True True [6]"


def test_a_server_process_never_imports_tensorflows_python_package(foreign_models: Path) -> None:
    """Loading and running a model leaves no tensorflow and no keras among the imported modules."""
    script = (
        "import sys; from pathlib import Path; from horngate_server import app, runtime;"
        f"model = runtime.load(Path({str(foreign_models / 'free' / '1')!r}));"
        "feed = model.feed(model.signature, [(1, 1)]); model.run(feed);"
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras')])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_tensorflows_library_leaves_other_libraries_their_own_symbols() -> None:
    """A library that is loaded later, such as numpy.random's, does not get TensorFlow's and crash."""
    script = "from horngate_server.runtime import capi; capi.library(); from numpy import random; print(random.rand(0))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"

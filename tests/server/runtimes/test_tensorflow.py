"""Real SavedModels through TensorFlow's C library."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_protos.datatypes import DATATYPES
from horngate_server.core.errors import DeviceUnavailable, InputRefused, ModelError, OutOfMemory
from horngate_server.core.signature import FREE, Feature
from horngate_server.runtimes import process_memory, tensorflow
from horngate_server.runtimes.tensorflow import saved_model


def test_several_inputs_and_outputs_are_computed_by_name(foreign_models: Path) -> None:
    """Feeds and fetches follow the signature's names, sorted."""
    model = tensorflow.load(foreign_models / "several" / "2")
    assert str(model.signature) == "(a UINT8[?,2], b FP32[?,2]) -> (many INT64[?,2], sum FP32[?,2])"
    feed = model.feed(model.signature, [(3, 2), (3, 2)])
    feed.arrays[0][:] = [[1, 2], [3, 4], [5, 6]]
    feed.arrays[1][:] = 0.5
    many, total = model.run(feed)
    assert many.tolist() == [[10, 20], [30, 40], [50, 60]]
    assert total.tolist() == [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]]
    model.close()


def test_every_signature_that_can_be_served_is(foreign_models: Path) -> None:
    """Each has its own inputs and outputs in the one graph."""
    model = tensorflow.load(foreign_models / "signatures" / "1")
    assert list(model.signatures) == ["serving_default", "mean", "words"]
    results = {}
    for name in ("serving_default", "mean"):
        signature = model.signatures[name]
        feed = model.feed(signature, [(2, 2)])
        feed.arrays[0][:] = [[1, 3], [5, 7]]
        results[name] = [array.tolist() for array in model.run(feed)]
    assert results == {"serving_default": [[[2, 6], [10, 14]]], "mean": [[2, 6]]}
    assert model.signatures["mean"].inputs[0].tensor == "mean_x:0"
    model.close()


def test_every_datatype_of_the_protocol_goes_in_and_comes_out_unchanged(foreign_models: Path) -> None:
    """BOOL, all integers and all floats, BF16 as its sixteen bits."""
    model = tensorflow.load(foreign_models / "every" / "1")
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
    model = tensorflow.load(foreign_models / "free" / "1")
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
    model = tensorflow.load(foreign_models / "free" / "1")
    feed = model.feed(model.signature, [(2, 3)])
    feed.arrays[0][:] = 1
    assert model.run(feed)[0].tolist() == [3, 3]
    assert not feed.arrays
    assert model.feed(model.signature, [(2, 3)]) is not feed
    model.close()


def test_an_error_while_computing_is_said_in_tensorflows_words_and_the_session_goes_on(foreign_models: Path) -> None:
    """What the model says about its input is the input's fault; where in the graph is left out. The next run works."""
    model = tensorflow.load(foreign_models / "fails" / "1")
    feed = model.feed(model.signature, [(1, 1)])
    feed.arrays[0][:] = np.nan
    with pytest.raises(InputRefused, match=r"^the model refuses this input: .*not a number in the batch : .*values$"):
        model.run(feed)
    feed.arrays[0][:] = 2.0
    assert model.run(feed)[0].tolist() == [[4.0]]
    model.close()
    model.close()


def test_what_is_no_saved_model_is_refused_with_the_reason(foreign_models: Path) -> None:
    """TensorFlow's words, and the folder."""
    with pytest.raises(ModelError, match="nowhere/1 cannot be loaded"):
        tensorflow.load(foreign_models / "nowhere/1")


def run(model: tensorflow.SavedModel, *inputs: object, signature: str = "") -> list[Any]:
    """Feed arrays to a signature, and return its outputs as lists."""
    chosen = model.signatures[signature] if signature else model.signature
    arrays = [np.asarray(each, spec.datatype.numpy) for each, spec in zip(inputs, chosen.inputs, strict=True)]
    feed = model.feed(chosen, [array.shape for array in arrays])
    for memory, array in zip(feed.arrays, arrays, strict=True):
        memory[...] = array
    return [array.tolist() for array in model.run(feed)]


def test_tensorflow_is_quiet_once_a_model_is_loaded_unless_it_was_asked_to_talk(foreign_models: Path) -> None:
    """What a model refuses is an error of the request, not two lines on stderr with the caller's values in them."""
    script = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from horngate_server.runtimes import tensorflow as runtime; from horngate_server.core import errors;"
        "model = runtime.load(Path(sys.argv[1])); feed = model.feed(model.signature, [(1, 1)]);"
        "feed.arrays[0][:] = np.nan\n"
        "try: model.run(feed)\n"
        "except errors.InputRefused: print('refused')"
    )
    said = {}
    for level in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", script, foreign_models / "fails" / "1"],
            check=True, capture_output=True, text=True, timeout=60, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": level},
        )  # fmt: skip
        assert done.stdout == "refused\n"
        said[level] = "Local rendezvous" in done.stderr
    assert said == {"0": True, "1": False}


def test_shapes_of_every_kind_go_in_and_come_out(foreign_models: Path) -> None:
    """Fixed first axes, scalars, unknown ranks, and axes without elements."""
    model = tensorflow.load(foreign_models / "shapes" / "1")
    assert str(model.signature).startswith("(any_rank FP32 of any shape, fixed FP32[4,2], scalar FP32[]) -> ")
    ranks: list[object] = [1.5, [[[1.0], [2.0]]], [[], []]]
    for any_rank in ranks:
        assert run(model, any_rank, [[1, 2]] * 4, 3) == [any_rank, [[2, 4]] * 4, 4]
    model.close()


def test_strings_go_in_and_come_out_whatever_their_length_and_bytes(foreign_models: Path) -> None:
    """Short ones lie inside TensorFlow's strings, long ones have memory of their own; zeros are no ends."""
    model = tensorflow.load(foreign_models / "strings" / "1")
    for words in ([b"", b"a", b"\0", b"a\0"], [b"x" * 22, b"x" * 23, b"x" * 22 + b"\0", bytes(range(256)) * 300]):
        given = np.array([*words, None], object)[:-1].reshape(2, 2)
        feed = model.feed(model.signature, [(2, 2)])
        feed.arrays[0][...] = given
        (came,) = model.run(feed)
        assert came.tolist() == given.tolist()
    assert run(model, np.empty((0, 3), object)) == [[]]
    model.close()


def test_strings_leave_no_memory_behind(foreign_models: Path) -> None:
    """What a run copied is freed once TensorFlow has no use for it."""
    model = tensorflow.load(foreign_models / "strings" / "1")
    text = b"x" * (1 << 20)
    run(model, [[text] * 16])
    before = process_memory.resident()
    for _ in range(40):
        run(model, [[text] * 16])
    assert process_memory.resident() - before < 200 << 20  # 640 MB went through
    assert not saved_model._HELD._held
    model.close()


def test_a_model_that_remembers_what_it_was_given_has_it_for_itself(foreign_models: Path) -> None:
    """The memory of its input is not used again, whatever comes next: a variable may live in it."""
    model = tensorflow.load(foreign_models / "remembers" / "1")
    for number in range(1, 5):
        (before,) = run(model, np.full((8, 1024), number))
        assert before == (number - 1) * 8 * 1024
    model.close()
    assert not saved_model._HELD._held


def test_a_graph_tells_what_it_changes_whether_it_loops_and_what_it_parses(foreign_models: Path) -> None:
    """Counters write; loops may run for ever; a parser names the features that it wants."""
    facts = {}
    for name in ("counter", "remembers", "loops", "example", "classifier", "signatures"):
        model = tensorflow.load(foreign_models / name / "1")
        facts[name] = (model.signature.writes, model.signature.loops)
        if name == "example":
            features = model.signature.inputs[0].features
        model.close()
    assert facts == {
        "counter": (("AssignAddVariableOp",), False),
        "remembers": (("AssignVariableOp",), False),
        "loops": ((), True),
        "example": ((), False),
        "classifier": ((), False),
        "signatures": ((), False),
    }
    assert set(features) == {Feature("age", 1, 2), Feature("ids", 9, FREE), Feature("words", 7, FREE)}


def test_signatures_that_run_one_function_are_known_to_be_the_same(foreign_models: Path) -> None:
    """TensorFlow wraps each in a function of its own, of the same content; another function is another."""
    model = tensorflow.load(foreign_models / "equal" / "1")
    assert {name: each.function for name, each in model.signatures.items()} == {
        "predict": "predict", "again": "predict", "other": "other",
    }  # fmt: skip
    assert run(model, [[1, 2]], signature="again") == run(model, [[1, 2]])
    model.close()


def test_the_default_signature_is_the_usual_one_or_what_the_operator_says(foreign_models: Path) -> None:
    """serving_default, else the only one, else predict; or by name, and an unknown name is an error with the others."""
    assert tensorflow.load(foreign_models / "equal" / "1").signature.name == "predict"
    assert tensorflow.load(foreign_models / "equal" / "1", signature="other").signature.name == "other"
    assert tensorflow.load(foreign_models / "signatures" / "1").signature.name == "serving_default"
    with pytest.raises(ModelError, match="has no signature nope; it has: again, other, predict"):
        tensorflow.load(foreign_models / "equal" / "1", signature="nope")


def test_the_meta_graph_is_the_usual_one_the_only_one_or_what_the_operator_says(foreign_models: Path) -> None:
    """Other tags than TensorFlow's "serve" are found; where several are left, it is the operator who must choose."""
    assert run(tensorflow.load(foreign_models / "tagged" / "1"), [[1, 2]]) == [[[3, 6]]]
    assert run(tensorflow.load(foreign_models / "several_tags" / "1", tags=["serve", "tpu"]), [[1, 2]]) == [[[3, 6]]]
    with pytest.raises(ModelError, match=r"no MetaGraph with the tags serve; it has: gpu, serve\+tpu"):
        tensorflow.load(foreign_models / "several_tags" / "1")
    with pytest.raises(ModelError, match="no MetaGraph with the tags nope; it has: gpu "):
        tensorflow.load(foreign_models / "tagged" / "1", tags=["nope"])


OP_MODEL = """
import sys, tensorflow as tf
triple = tf.load_op_library(sys.argv[1]).triple
module = tf.Module()
module.serve = tf.function(lambda x: {"y": triple(x)}, input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
tf.saved_model.save(module, sys.argv[2], signatures={"serving_default": module.serve})
"""
OP_SERVE = """
import sys; from pathlib import Path
from horngate_server.runtimes import tensorflow as runtime
from horngate_server.core.errors import ModelError
library, path = map(Path, sys.argv[1:])
try:
    runtime.load(path)
except ModelError as error:
    print("Triple" in str(error))
runtime.load_op_library(library)
runtime.load_op_library(library)
model = runtime.load(path)
feed = model.feed(model.signature, [(1, 2)])
feed.arrays[0][:] = [[1, 2]]
print(model.run(feed)[0].tolist())
"""


@pytest.mark.slow
def test_a_model_may_use_operations_of_a_library_of_the_operators_own(tmp_path: Path) -> None:
    """Without the library the model is refused with the operation's name; with it, it is served. Twice does no harm."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = Path(next(iter(find_spec("tensorflow").submodule_search_locations)))  # type: ignore[union-attr,arg-type]
    library, model = tmp_path / "triple.so", tmp_path / "triple" / "1"
    source = Path(__file__).parents[2] / "support" / "triple_op.c"
    framework = next(iter(sorted(folder.glob("libtensorflow_framework.so*"))))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, framework], check=True, timeout=60)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    make: list[str | Path] = [sys.executable, "-c", OP_MODEL, library, model]
    subprocess.run(make, check=True, capture_output=True, timeout=100, env=environment)
    serve: list[str | Path] = [sys.executable, "-c", OP_SERVE, library, model]
    done = subprocess.run(serve, check=True, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.split("\n")[:2] == ["True", "[[3.0, 6.0]]"]


def test_a_library_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    """The flag and the file are named."""
    (tmp_path / "ops.so").write_text("no library")
    with pytest.raises(ModelError, match="--op-library .*ops.so cannot be loaded: "):
        tensorflow.load_op_library(tmp_path / "ops.so")


def test_more_memory_than_there_is_is_an_error_of_that_request(foreign_models: Path) -> None:
    """What cannot be allocated raises OutOfMemory; the next run works."""
    model = tensorflow.load(foreign_models / "free" / "1")
    with pytest.raises(OutOfMemory, match="no memory for a batch"):
        model.feed(model.signature, [(1, 1 << 60)])
    assert run(model, [[1, 2]]) == [[3]]
    model.close()


def test_loading_and_closing_leaves_no_memory_behind(foreign_models: Path) -> None:
    """A version that is loaded twenty times, as it proves itself anew, takes no more than once."""
    tensorflow.load(foreign_models / "classifier" / "1").close()
    before = process_memory.resident()
    for _ in range(20):
        tensorflow.load(foreign_models / "classifier" / "1").close()
    process_memory.trim()
    assert process_memory.resident() - before < 40 << 20


def test_a_demanded_gpu_that_is_not_there_is_an_error_with_the_reason(foreign_models: Path) -> None:
    """--device gpu never falls back in silence; auto does, and says why."""
    if tensorflow.load(foreign_models / "free" / "1").device.kind == "GPU":
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceUnavailable, match="--device gpu, but TensorFlow can use none: .*NVIDIA"):
        tensorflow.load(foreign_models / "free" / "1", device="gpu")
    assert tensorflow.load(foreign_models / "free" / "1", device="cpu").device.why == "--device cpu"


def test_pages_that_only_loading_needed_are_given_back_and_the_model_computes_on(foreign_models: Path) -> None:
    """More than 100 MB of the libraries leave the process's memory; what serving needs comes back by itself."""
    script = (
        "import re; from pathlib import Path;"
        "from horngate_server.runtimes import tensorflow as runtime;"
        "from horngate_server.runtimes import process_memory as pages;"
        "rss = lambda: int(re.search(r'VmRSS:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024;"
        f"model = runtime.load(Path({str(foreign_models / 'free' / '1')!r}));"
        "before = rss(); released = pages.release(); after = rss();"
        "feed = model.feed(model.signature, [(1, 2)]); feed.arrays[0][:] = 3;"
        "print(released > 10**8, before - after > 10**8, model.run(feed)[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True True [6]"


def test_a_server_process_never_imports_tensorflows_python_package(foreign_models: Path) -> None:
    """Loading and running a model leaves no tensorflow and no keras among the imported modules."""
    script = (
        "import sys; from pathlib import Path;"
        "from horngate_server.process import app;"
        "from horngate_server.runtimes import tensorflow as runtime;"
        f"model = runtime.load(Path({str(foreign_models / 'free' / '1')!r}));"
        "feed = model.feed(model.signature, [(1, 1)]); model.run(feed);"
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras')])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_tensorflows_library_leaves_other_libraries_their_own_symbols() -> None:
    """A library that is loaded later, such as numpy.random's, does not get TensorFlow's and crash."""
    script = (
        "from horngate_server.runtimes.tensorflow import capi; capi.library();"
        "from numpy import random; print(random.rand(0))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"

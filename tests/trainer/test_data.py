"""Training data: what is taken, what is refused, and how."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_trainer import data, evaluation
from horngate_trainer.errors import DataError

MNIST = Path(data.__file__).parent / "data" / "mnist.npz"


def test_the_mnist_that_ships_is_the_canonical_one() -> None:
    """60,000 and 10,000 images of 28x28 in ten classes, with digests that are checked on every load."""
    dataset = data.load("builtin")
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert (dataset.classes, str(dataset.x_train.dtype)) == (10, "uint8")
    assert np.bincount(dataset.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_images_that_are_recorded_have_the_classes_shares() -> None:
    """Any first ones: load that is made of them does not look like drift."""
    y_test = np.repeat([0, 1, 2], [600, 300, 100]).astype(np.int32)
    dataset = data.Dataset("", "", np.zeros(0, np.uint8), y_test, y_test.astype(np.uint8), y_test, 3)
    for first in (10, 40, 1000):
        assert np.bincount(evaluation.spread(dataset)[:first]).tolist() == [0.6 * first, 0.3 * first, 0.1 * first]


def test_a_damaged_builtin_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel off, and the built-in data are refused."""
    with np.load(MNIST) as archive:
        arrays = dict(archive)
    arrays["x_test"][0, 0, 0] ^= 1
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setattr(data, "_BUILTIN", tmp_path / "mnist.npz")
    with pytest.raises(DataError, match="SHA-256 digest is not MNIST's"):
        data.load("builtin")


def test_any_image_size_and_number_of_classes_is_taken(write_data: Any) -> None:
    """Another data set in Keras's layout simply works, colour images too."""
    dataset = data.load(str(write_data(side=12, classes=5)))
    assert (dataset.image_shape, dataset.classes) == ((12, 12), 5)
    colour = np.zeros((300, 4, 4, 3), np.uint8)
    assert data.load(str(write_data(x_train=colour, x_test=colour[:90]))).image_shape == (4, 4, 3)


ZEROS = np.zeros((300, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        pytest.param({"y_test": None}, "lacks y_test; it has x_train, y_train, x_test", id="missing"),
        pytest.param({"x_train": ZEROS[:0], "y_train": np.zeros(0, int)}, "x_train is empty", id="empty"),
        pytest.param({"x_train": ZEROS[:299]}, "x_train has 299 images but y_train has 300 labels", id="lengths"),
        pytest.param({"x_train": ZEROS.reshape(300, 64)}, r"x_train must be \[N, height, width\]", id="rank"),
        pytest.param({"x_train": ZEROS.astype(complex)}, "x_train must be numbers .*not complex128", id="dtype"),
        pytest.param({"x_train": ZEROS - 1.0}, "float64 from -1 to -1; floats must be from 0 to 1", id="normalised"),
        pytest.param({"x_train": ZEROS * np.nan}, "floats must be from 0 to 1", id="nan"),
        pytest.param({"x_train": ZEROS + np.int32(70000)}, "int32 from 70000 to 70000; pixels are", id="range"),
        pytest.param({"y_train": np.full(300, 0.5)}, "y_train must be whole numbers, not float64", id="label-dtype"),
        pytest.param({"y_train": np.ones((300, 3))}, r"y_train is \(300, 3\), and row 0 is not one-hot", id="one-hot"),
        pytest.param(
            {"y_train": np.array(["a", "b"] * 150)}, "has texts, and the other labels are numbers", id="mixed"
        ),
        pytest.param(
            {"y_train": np.array(["a", "b"] * 150), "y_test": np.array(["c"] * 90)},
            "label 'c' in y_test does not occur in y_train",
            id="unknown-name",
        ),
        pytest.param(
            {"y_train": np.array(["a", "b\n"] * 150), "y_test": np.array(["a"] * 90)}, "texts of one line", id="lines"
        ),
        pytest.param({"y_train": np.arange(300) % 3 - 1}, "label -1 in y_train is out of range", id="negative"),
        pytest.param({"y_test": np.full(90, 7)}, "label 7 in y_test is out of range: y_train has 0 to 2", id="unknown"),
        pytest.param({"y_train": np.arange(300) % 2 * 9}, "label 9 in y_train is out of range", id="gap"),
        pytest.param({"y_train": np.zeros(300, int)}, "only one class", id="one-class"),
        pytest.param({"x_test": np.zeros((90, 9, 9), np.uint8)}, "differ in shape", id="sizes"),
        pytest.param({"y_train": np.array([{}] * 300)}, "holds pickled Python objects", id="pickle"),
    ],
)
def test_bad_data_get_one_clear_line(write_data: Any, replaced: dict[str, Any], said: str) -> None:
    """Each mistake is named with the array and what is wrong with it."""
    with pytest.raises(DataError, match=said) as refused:
        data.load(str(write_data(**replaced)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "pixels"),
    [
        pytest.param(np.linspace(0, 1, 6, dtype="f"), [0, 51, 102, 153, 204, 255], id="fractions"),
        pytest.param(np.array([0, 0, 0, 1, 1, 1], bool), [0, 0, 0, 255, 255, 255], id="bool"),
        pytest.param(np.array([0, 1, 2, 3, 254, 255], np.int64), [0, 1, 2, 3, 254, 255], id="int64"),
        pytest.param(np.array([0, 257, 514, 300, 65534, 65535], np.uint16), [0, 1, 2, 1, 255, 255], id="16-bit"),
        pytest.param(np.array([0, 1, 2, 3, 254, 255], np.uint16), [0, 1, 2, 3, 254, 255], id="8-bit-in-16"),
    ],
)
def test_pixels_may_come_as_other_numbers(write_data: Any, given: np.ndarray, pixels: list[int]) -> None:
    """Fractions of white, black and white, wider whole numbers, 16 bits of grey: they become pixels of 8 bits."""
    images = np.resize(given, (300, 2, 3))
    dataset = data.load(str(write_data(x_train=images, x_test=images[:90])))
    assert dataset.x_train.dtype == np.uint8
    assert dataset.x_train[0].ravel().tolist() == dataset.x_test[0].ravel().tolist() == pixels


@pytest.mark.parametrize("kind", ["U", "S", "one-hot"])
def test_labels_may_be_texts_or_one_hot(write_data: Any, kind: str) -> None:
    """Texts are counted in their order, and stay the classes' names; one-hot rows are the places of their ones."""
    numbers = {"y_train": np.arange(300) % 3, "y_test": np.arange(90) % 3}
    names = np.array(["eel", "cat", "dög"])
    given = {
        key: np.eye(3)[each] if kind == "one-hot" else np.char.encode(names[each]) if kind == "S" else names[each]
        for key, each in numbers.items()
    }
    dataset = data.load(str(write_data(**given)))
    place = np.arange(3) if kind == "one-hot" else np.array([2, 0, 1])
    assert dataset.y_train.tolist() == place[numbers["y_train"]].tolist()
    assert dataset.y_test.tolist() == place[numbers["y_test"]].tolist()
    assert dataset.names == (None if kind == "one-hot" else ["cat", "dög", "eel"])


def test_files_that_are_no_npz_are_refused(tmp_path: Path, write_data: Any) -> None:
    """No file, another format, a truncated archive."""
    (tmp_path / "text.npz").write_text("hello")
    whole = write_data("whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name, said in (("none.npz", "cannot read"), ("text.npz", "not an .npz file"), ("cut.npz", "not an .npz file")):
        with pytest.raises(DataError, match=said):
            data.load(str(tmp_path / name))

"""TFRecords as training data: found, indexed, checked, and read from anywhere in them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from horngate_trainer import data
from horngate_trainer.errors import DataError
from horngate_trainer.memory import Size
from horngate_trainer.streamed import Streamed
from horngate_trainer.tfrecords import Features
from support.trainings import blobs

pytestmark = pytest.mark.slow


def feature(value: Any) -> tf.train.Feature:
    """A whole number, or bytes."""
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def png(image: np.ndarray[Any, Any]) -> bytes:
    """A file's content."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "png")
    return content.getvalue()


def write(path: Path, examples: list[dict[str, Any]]) -> Path:
    """Write a file of examples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in examples:
            features = tf.train.Features(feature={name: feature(value) for name, value in each.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())
    return path


def encoded(image: np.ndarray[Any, Any], label: int) -> dict[str, Any]:
    """As TensorFlow's image classification scripts write them."""
    return {"image/encoded": png(image), "image/class/label": label, "image/height": 8, "image/width": 8}


def raw(image: np.ndarray[Any, Any], label: int) -> dict[str, Any]:
    """As TensorFlow's tutorial of TFRecords writes them."""
    return {"image_raw": image.tobytes(), "label": label, "height": 8, "width": 8, "depth": 1}


@pytest.mark.parametrize("make", [encoded, raw])
def test_images_come_in_the_order_of_the_files(tmp_path: Path, make: Callable[..., dict[str, Any]]) -> None:
    """Several files of a part, and parts in folders; images are read as they are needed, from anywhere."""
    (x_train, y_train), (x_test, y_test) = blobs(12), blobs(6, seed=1)
    train = [make(image, int(label)) for image, label in zip(x_train, y_train, strict=True)]
    write(tmp_path / "train-00000-of-00002", train[:5])
    write(tmp_path / "train-00001-of-00002", train[5:])
    write(
        tmp_path / "val/data.tfrecord", [make(image, int(label)) for image, label in zip(x_test, y_test, strict=True)]
    )
    sizes: list[Size] = []
    dataset = data.load(str(tmp_path), sizes.append)
    assert isinstance(dataset.x_train, Streamed)
    order = np.array([7, 2, 11, 0])
    assert np.array_equal(dataset.x_train[order], x_train[order])
    assert np.array_equal(dataset.x_test[:], x_test)
    assert (dataset.y_train.tolist(), dataset.classes) == (y_train.tolist(), 3)
    assert sizes == [Size(12, 6, (8, 8), 3, 0, streamed=True)]
    write(tmp_path / "train-00001-of-00002", [*train[6:], train[5]])
    assert data.load(str(tmp_path)).digest != dataset.digest


def test_features_may_have_other_names_and_labels_may_be_texts(tmp_path: Path) -> None:
    """Flags name them; images of several sizes are brought to one."""
    images = [np.full((4 + row, 6), 40 * row, np.uint8) for row in range(4)]
    examples = [{"pixels": png(image), "kind": [b"dog", b"cat"][row % 2]} for row, image in enumerate(images)]
    for part in ("my-train.tfrecords", "my-test.tfrecords"):
        write(tmp_path / part, examples)
    with pytest.raises(DataError, match=r"record 0 has no label .* it has kind, pixels; --label-feature"):
        data.load(str(tmp_path))
    named = Features("pixels", "kind")
    with pytest.raises(DataError, match=r"differ in size: .*record 0 is 4x6, .*record 1 is 5x6; --image-size 4x6"):
        data.load(str(tmp_path), features=named)
    dataset = data.load(str(tmp_path), image_size=(5, 6), features=named)
    assert (dataset.names, dataset.y_train.tolist()) == (["cat", "dog"], [1, 0, 1, 0])
    assert dataset.x_train[:].reshape(4, -1).max(axis=1).tolist() == [0, 40, 80, 120]


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    """Which file, and which record of it."""
    examples = [encoded(image, row % 2) for row, image in enumerate(blobs(4)[0])]
    file = write(tmp_path / "train.tfrecord", examples)
    with pytest.raises(DataError, match=r"has no records for the part 'test'"):
        data.load(str(tmp_path))
    test = write(tmp_path / "test.tfrecord", [*examples[:1], {"image/encoded": b"no image", "image/class/label": 0}])
    with pytest.raises(DataError, match=r"test\.tfrecord, record 1 cannot be read as an image"):
        data.load(str(tmp_path))
    write(test, examples)
    content = file.read_bytes()
    file.write_bytes(content[:-20] + b"x" + content[-19:])
    with pytest.raises(DataError, match=r"train\.tfrecord is damaged after record 3"):
        data.load(str(tmp_path))
    file.rename(tmp_path / "train.tfrecord.gz")
    with pytest.raises(DataError, match="is compressed"):
        data.load(str(tmp_path))
    (tmp_path / "train.tfrecord.gz").rename(tmp_path / "some.tfrecord")
    with pytest.raises(DataError, match="must say either train or test"):
        data.load(str(tmp_path))

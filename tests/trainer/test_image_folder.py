"""Folders of images: how they are read, split, and refused."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from horngate_trainer import data
from horngate_trainer.errors import DataError, TooLargeError, TrainerError
from horngate_trainer.memory import Size
from horngate_trainer.streamed import Streamed

Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes images of one brightness each; size is width and height, as Pillow has it."""

    def write(folder: str, *shades: int, mode: str = "L", size: tuple[int, int] = (4, 3), suffix: str = "png") -> None:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for number, shade in enumerate(shades):
            if mode == "I;16":
                image = Image.fromarray(np.full(size[::-1], shade * 257, np.uint16))
            else:
                image = Image.new("L", size, shade).convert(mode)
            image.save(tmp_path / folder / f"{number}.{suffix}")

    return write


def shades(images: np.ndarray) -> list[int]:
    """The first pixel of each image, sorted."""
    return sorted(images.reshape(len(images), -1)[:, 0].tolist())


def test_folders_in_train_and_test_are_classes(tmp_path: Path, put: Put) -> None:
    """Sorted by name, with all that is below them; other files and hidden folders are nothing."""
    put("train/dog", 1, 2)
    put("train/cat/deep/down", 3, suffix="bmp")
    put("train/.cache", 9)
    put("test/dog", 4, 5)
    (tmp_path / "train/dog/notes.txt").write_text("not an image")
    dataset = data.load(str(tmp_path))
    assert (dataset.names, dataset.classes, dataset.image_shape) == (["cat", "dog"], 2, (3, 4))
    assert (shades(dataset.x_train[:]), dataset.y_train.tolist()) == ([1, 2, 3], [0, 1, 1])
    assert (shades(dataset.x_test[:]), dataset.y_test.tolist()) == ([4, 5], [1, 1])
    (tmp_path / "test").rename(tmp_path / "val")
    assert data.load(str(tmp_path)).digest == dataset.digest
    shutil.rmtree(tmp_path / "val")
    put("train/cat", 4)
    split = data.load(str(tmp_path))
    assert (split.names, len(split.y_train), len(split.y_test)) == (["cat", "dog"], 2, 2)


def test_one_folder_is_split_the_same_way_each_time(tmp_path: Path, put: Put) -> None:
    """A fifth of each class, at least one of it, is kept for the test; no image is in both."""
    put("cat", *range(10))
    put("dog", *range(100, 120))
    put("eel", 200, 201)
    dataset = data.load(str(tmp_path))
    assert np.bincount(dataset.y_train).tolist() == [8, 16, 1]
    assert np.bincount(dataset.y_test).tolist() == [2, 4, 1]
    both = sorted(shades(dataset.x_train[:]) + shades(dataset.x_test[:]))
    assert both == [*range(10), *range(100, 120), 200, 201]
    assert data.load(str(tmp_path)).digest == dataset.digest


@pytest.mark.parametrize(
    ("mode", "suffix", "shape"), [("L", "jpg", (3, 4)), ("I;16", "png", (3, 4)), ("RGB", "bmp", (3, 4, 3)),
                                  ("P", "gif", (3, 4, 3)), ("RGBA", "png", (3, 4, 3))]
)  # fmt: skip
def test_every_kind_of_image_becomes_pixels_of_8_bits(
    tmp_path: Path, put: Put, mode: str, suffix: str, shape: tuple[int, ...]
) -> None:
    """Grey stays grey, 16 bits of it too; where one has colours, all have three."""
    put("a", 10, 200, mode=mode, suffix=suffix)
    put("b", 10, 200)
    dataset = data.load(str(tmp_path))
    assert dataset.image_shape == shape
    assert shades(np.concatenate([dataset.x_train, dataset.x_test])) == [10, 10, 200, 200]


def test_images_of_several_sizes_need_one_to_be_named(tmp_path: Path, put: Put) -> None:
    """The refusal names two that differ, and the flag; with it, all have that size."""
    put("a", 1, 1)
    put("b", 2, 2, size=(8, 6))
    with pytest.raises(DataError, match="differ in size: .* is 3x4, .* is 6x8; --image-size 3x4"):
        data.load(str(tmp_path))
    assert data.load(str(tmp_path), image_size=(5, 2)).image_shape == (5, 2)
    with pytest.raises(DataError, match="--image-size is for a folder of images"):
        data.load("builtin", image_size=(5, 2))


def test_how_large_it_is_is_told_before_an_image_is_decoded(tmp_path: Path, put: Put) -> None:
    """Whoever is told may refuse: sizes come from the images' headers, so that damaged ones are no matter yet."""
    put("a", 1, 1)
    put("b", 2, 2)
    whole = (tmp_path / "b/1.png").read_bytes()
    (tmp_path / "b/1.png").write_bytes(whole[: whole.index(b"IDAT") + 6])
    told: list[Size] = []
    with pytest.raises(DataError, match=r"b/1.png cannot be read as an image: "):
        data.load(str(tmp_path), told.append)
    assert told == [Size(train=2, test=2, image_shape=(3, 4), classes=2, loading_bytes=4 * 12)]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({}, "has no folders: a folder of images for each class is needed"),
        ({"a": [1, 1], "b": []}, "b has no images"),
        ({"a": [1], "b": [2]}, "no class has two images"),
        ({"a": [1, 1]}, "only one class"),
        ({"train/a": [1], "train/b": [1], "test/c": [1]}, "test has the class 'c', which .*train has not"),
        ({"train/a": [1], "train/b": [1], "test/a": []}, "test has no images"),
    ],
)
def test_folders_that_are_no_data_set_are_refused(
    tmp_path: Path, put: Put, folders: dict[str, list[int]], said: str
) -> None:
    """Each with what is missing where."""
    for name, images in folders.items():
        put(name, *images)
    with pytest.raises(DataError, match=said):
        data.load(str(tmp_path))


def test_transparent_images_are_refused(tmp_path: Path, put: Put) -> None:
    """As the client refuses them: nobody knows what is behind."""
    put("a", 1, 1)
    put("b", 1, 1)
    Image.new("RGBA", (4, 3), (9, 9, 9, 0)).save(tmp_path / "a/0.png")
    with pytest.raises(DataError, match="a/0.png has transparent pixels"):
        data.load(str(tmp_path))


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with the trainer's."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(TrainerError, match=r"a folder of images needs PIL, .*pip install 'horngate\[trainer\]'"):
        data.load(str(tmp_path))


def test_a_folder_that_is_streamed_has_the_same_images(tmp_path: Path, put: Put) -> None:
    """One by one, in slices, in any order; by itself, too, where memory is too small for them."""
    put("train/cat", 1, 2, 3, mode="RGB")
    put("train/dog", 4, 5, size=(8, 6))
    put("test/dog", 6)
    held = data.load(str(tmp_path), image_size=(3, 4))
    sizes: list[Size] = []

    def before(size: Size) -> None:
        sizes.append(size)
        if not size.streamed:
            raise TooLargeError("too large")

    asked = data.load(str(tmp_path), image_size=(3, 4), stream=True)
    forced = data.load(str(tmp_path), before, image_size=(3, 4))
    assert [size.streamed for size in sizes] == [False, True]
    for streamed in (asked, forced):
        assert isinstance(streamed.x_train, Streamed)
        order = np.array([4, 0, 3])
        assert np.array_equal(streamed.x_train[order], held.x_train[order])
        assert np.array_equal(streamed.x_test[:], held.x_test[:])
        assert np.array_equal(streamed.x_train[2], held.x_train[2])
        assert (streamed.y_train.tolist(), streamed.names) == (held.y_train.tolist(), held.names)
    assert asked.digest == forced.digest != held.digest
    put("train/dog", 9, size=(9, 6))
    assert data.load(str(tmp_path), image_size=(3, 4), stream=True).digest != asked.digest

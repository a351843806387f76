"""What becomes an image batch, and what is refused with which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from horngate_client.errors import ConversionError, MissingExtra
from horngate_client.images import ImageInput, convert
from horngate_client.signature import ModelMetadata, TensorSpec

RAMP = (np.arange(784, dtype=np.int64) % 256).reshape(28, 28)
BYTES = RAMP.astype(np.uint8)


def wanted(shape: tuple[int, ...] = (-1, 28, 28), datatype: str = "UINT8") -> ImageInput:
    """Make the input of an image model."""
    spec = TensorSpec("images", datatype, shape)
    return ImageInput.of(ModelMetadata("m", ("1",), "p", (spec,), ()))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(BYTES, BYTES[None], id="28x28"),
        pytest.param(BYTES[..., None], BYTES[None], id="28x28x1"),
        pytest.param(np.stack([BYTES] * 3), np.stack([BYTES] * 3), id="Nx28x28"),
        pytest.param(np.stack([BYTES] * 3)[..., None], np.stack([BYTES] * 3), id="Nx28x28x1"),
        pytest.param(np.stack([BYTES] * 28), np.stack([BYTES] * 28), id="28x28x28-is-a-batch"),
        pytest.param([BYTES, BYTES.T], np.stack([BYTES, BYTES.T]), id="list-of-arrays"),
        pytest.param([BYTES, np.stack([BYTES] * 2)], np.stack([BYTES] * 3), id="list-of-image-and-batch"),
        pytest.param(BYTES.tolist(), BYTES[None], id="nested-lists"),
        pytest.param(RAMP, BYTES[None], id="int64-in-range"),
        pytest.param(RAMP.astype(np.float64) / 255, BYTES[None], id="floats-0-to-1"),
        pytest.param((RAMP / 255).astype(np.float16), BYTES[None], id="half-floats-0-to-1"),
        pytest.param(RAMP.astype(np.float32), BYTES[None], id="whole-floats-0-to-255"),
        pytest.param(RAMP > 100, ((RAMP > 100) * 255).astype(np.uint8)[None], id="bools"),
        pytest.param(BYTES.T, np.ascontiguousarray(BYTES.T)[None], id="not-contiguous"),
        pytest.param(Image.fromarray(BYTES), BYTES[None], id="PIL-grey"),
        pytest.param(Image.fromarray(np.stack([BYTES] * 3, -1)), BYTES[None], id="PIL-RGB"),
        pytest.param([Image.fromarray(BYTES)] * 2, np.stack([BYTES] * 2), id="list-of-PIL"),
    ],
)
def test_what_is_unambiguous_becomes_a_batch_of_bytes(given: Any, expected: np.ndarray) -> None:
    """Shapes and values with one meaning are converted to it, contiguous."""
    got = convert(given, wanted())
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


HOLLOW = np.zeros((28, 28))
TRANSPARENT = Image.new("RGBA", (28, 28), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(np.zeros((32, 32), np.uint8), r"\[32, 32\].*pass one image of 28x28", id="wrong-size"),
        pytest.param(np.zeros((3, 28, 27), np.uint8), r"\[3, 28, 27\]", id="wrong-width"),
        pytest.param(np.zeros((5, 784), np.uint8), r"flattened image.*reshape", id="flat"),
        pytest.param(np.zeros((28, 28, 3), np.uint8), r"\[28, 28, 3\]", id="colours"),
        pytest.param(np.zeros((0, 28, 28), np.uint8), "empty", id="no-rows"),
        pytest.param([], "no images", id="empty-list"),
        pytest.param(RAMP + 1, "values from 1 to 256; the model takes 0..255", id="too-large"),
        pytest.param(RAMP - 1, "values from -1 to 254", id="negative-integer"),
        pytest.param(HOLLOW - 0.5, "floats from -0.5 to -0.5", id="negative-float"),
        pytest.param(HOLLOW + 3.7, "floats from 3.7", id="neither-0-to-1-nor-whole"),
        pytest.param(HOLLOW + 256.0, "floats from 256", id="floats-too-large"),
        pytest.param(HOLLOW + np.nan, "NaN", id="NaN"),
        pytest.param(HOLLOW + np.inf, "infinite", id="infinite"),
        pytest.param(HOLLOW.astype(complex), "complex128", id="complex"),
        pytest.param(np.full((28, 28), "7"), "images are numbers", id="strings"),
        pytest.param(b"\x89PNG", "encoded picture or raw pixels", id="bytes"),
        pytest.param([[1, 2], [3]], "the array is not one", id="ragged"),
        pytest.param([BYTES, np.zeros((2, 2))], "image 1 of the list has the shape", id="one-of-a-list"),
        pytest.param(Image.new("L", (32, 30)), r"30x32 and the model takes 28x28.*resize=True", id="PIL-size"),
        pytest.param(TRANSPARENT, "transparent", id="transparent"),
        pytest.param("missing.npy", r"missing\.npy cannot be read", id="no-npy"),
        pytest.param("missing.png", r"missing\.png cannot be read as a picture", id="no-png"),
    ],
)
def test_what_would_need_a_guess_is_refused_with_the_reason(given: Any, words: str) -> None:
    """The refusal is a ConversionError, also a ValueError, and says what came."""
    with pytest.raises(ConversionError, match=words) as caught:
        convert(given, wanted())
    assert isinstance(caught.value, ValueError)


def test_files_are_read_whether_pictures_or_arrays(tmp_path: Path) -> None:
    """PNG and .npy, as text or as a Path, alone or in a list."""
    Image.fromarray(BYTES).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.stack([BYTES] * 2))
    np.testing.assert_array_equal(convert(str(tmp_path / "a.png"), wanted()), BYTES[None])
    assert convert([tmp_path / "a.png", tmp_path / "b.npy"], wanted()).shape == (3, 28, 28)


def test_a_pickle_in_an_npy_is_refused(tmp_path: Path) -> None:
    """A file of arrays never runs code."""
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConversionError, match=r"cannot be read as \.npy"):
        convert(tmp_path / "evil.npy", wanted())


def test_resize_and_invert_are_done_when_asked_for() -> None:
    """A large dark-on-light picture becomes a small light-on-dark one."""
    got = convert(Image.new("L", (280, 140), 255), wanted(), resize=True, invert=True)
    np.testing.assert_array_equal(got, np.zeros((1, 28, 28), np.uint8))


def test_a_model_with_a_channel_axis_gets_one() -> None:
    """[N, H, W, 1] takes the same images as [N, H, W]."""
    assert convert(BYTES, wanted((-1, 28, 28, 1))).shape == (1, 28, 28, 1)
    assert convert(np.stack([BYTES] * 4), wanted((-1, 28, 28, 1))).shape == (4, 28, 28, 1)


def test_a_colour_model_gets_rgb() -> None:
    """[N, H, W, 3] takes colour pictures; grey pictures are given equal colours, grey arrays are refused."""
    assert convert(Image.new("L", (28, 28), 9), wanted((-1, 28, 28, 3))).tolist()[0][0][0] == [9, 9, 9]
    with pytest.raises(ConversionError):
        convert(BYTES, wanted((-1, 28, 28, 3)))


def test_a_shape_with_two_readings_is_refused() -> None:
    """Where the model takes any size, H x W x 1 may as well be N x H x W."""
    with pytest.raises(ConversionError, match="can be read as"):
        convert(np.zeros((5, 6, 1), np.uint8), wanted((-1, -1, -1)))


def test_a_float_model_takes_floats_and_nothing_that_hides_its_scale() -> None:
    """Bytes may mean 0..1 or 0..255 there."""
    assert convert(RAMP / 255, wanted(datatype="FP32")).dtype == np.float32
    for given in (BYTES, Image.fromarray(BYTES), RAMP > 9):
        with pytest.raises(ConversionError, match=r"0\.\.1 or 0\.\.255"):
            convert(given, wanted(datatype="FP32"))


@pytest.mark.parametrize("shape", [(28, 28), (-1, 784), (-1, 28, 28, 7)])
def test_a_model_that_takes_no_images_is_refused(shape: tuple[int, ...]) -> None:
    """The message points to infer."""
    with pytest.raises(ConversionError, match="use infer"):
        wanted(shape)


def test_a_picture_without_pillow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow is optional, and its absence is explained."""
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"pip install 'horngate\[images\]'") as caught:
        convert("seven.png", wanted())
    assert isinstance(caught.value, ImportError)

"""Explanations: what is asked, what comes back, and how it is drawn."""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.conftest import images
from client.fake_server import FakeServer
from horngate_client import AsyncClient, Client, ConversionError, Explanation, MissingExtra, chart
from horngate_client.cli import main


def explanation(strengths: np.ndarray, pictures: np.ndarray) -> Explanation:
    """One of these attributions."""
    rows = len(strengths)
    numbers = np.zeros(rows, np.float32)
    return Explanation(strengths, np.zeros(rows, np.int64), numbers, numbers, numbers, pictures, "1")


@pytest.fixture
def digit(tmp_path: Path) -> str:
    """A PNG whose class is 7."""
    image = images(1)[0]
    image[0, 0] = 7
    Image.fromarray(image).save(tmp_path / "seven.png")
    return str(tmp_path / "seven.png")


def test_images_are_explained_in_order_by_the_signature_of_that_name(server: FakeServer) -> None:
    """In requests of 64 rows at most; the predicted class unless another one is asked for, for all or for each."""
    batch = images(100)
    predicted = batch[:, 0, 0] % 10
    with Client(server.address) as client:
        found = client.explain(batch)
        other = client.explain(batch, (predicted + 1) % 10)
        one = client.explain(batch[:2], 3)
    np.testing.assert_array_equal(found.target, predicted)
    np.testing.assert_array_equal(found.attributions, batch > 128)
    assert (len(found), found.version, str(found.gaps.dtype)) == (100, "1", "float32")
    np.testing.assert_array_equal(found.images, batch)
    np.testing.assert_array_equal(other.target, (predicted + 1) % 10)
    assert one.target.tolist() == [3, 3]
    asked = server.requests()
    assert sorted(request.inputs[0].shape[0] for request in asked[:2]) == [50, 50]
    assert {request.parameters["signature"].string_param for request in asked} == {"explain"}


def test_the_async_client_explains_the_same(server: FakeServer) -> None:
    """It is awaited."""

    async def ask() -> Explanation:
        async with AsyncClient(server.address) as client:
            return await client.explain(images(3), 7)

    assert asyncio.run(ask()).target.tolist() == [7, 7, 7]


def test_a_model_without_the_signature_says_how_to_get_it(server: FakeServer) -> None:
    """Before anything is sent; so are targets that are no classes."""
    with Client(server.address) as client:
        with pytest.raises(ConversionError, match=r"expected the number of a class, or one for each of 2"):
            client.explain(images(2), [1, 2, 3])
        with pytest.raises(ConversionError, match="target is float64"):
            client.explain(images(2), 1.5)
    server.explains = False
    with Client(server.address) as client, pytest.raises(ConversionError, match=r"export\(..., explain=True\)"):
        client.explain(images(1))
    assert server.count() == 0


def test_a_picture_shows_what_is_for_in_red_and_against_in_blue() -> None:
    """Side by side, the strongest pixel of each image in full colour, with the outline of the image itself."""
    strengths = np.zeros((2, 4, 4), np.float32)
    strengths[0, 0, 0], strengths[0, 0, 3], strengths[1, 0, 0] = 2, -1, 0.5
    pictures = np.zeros((2, 4, 4), np.uint8)
    pictures[:, 2, 2] = 255
    drawn = np.asarray(explanation(strengths, pictures).to_image(scale=10))
    assert drawn.shape == (40, 90, 3)
    red, half_blue, outline, inside = drawn[5, 5], drawn[5, 35], drawn[20, 20], drawn[25, 25]
    assert red.tolist() == drawn[5, 55].tolist() == [200, 30, 40]
    assert half_blue[2] > half_blue[0] > 100
    assert outline.tolist() == [90, 90, 90]
    assert inside.tolist() == [255, 255, 255]


def test_colours_are_taken_together() -> None:
    """A pixel's channels are one place."""
    found = explanation(np.ones((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.uint8))
    assert found.strengths.tolist() == [[[1, 1], [1, 1]]]
    assert found.to_image(scale=2).size == (4, 4)
    assert explanation(np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8)).strengths.max() == 0


def test_pictures_need_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """And say how to get it."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match="pip install"):
        explanation(np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8)).to_image()


def test_heat_is_drawn_in_marks_or_in_colours() -> None:
    """Two characters a pixel; what is weak is left out."""
    strengths = np.array([[1.0, 0.2, 0.0], [-0.2, -1.0, 0.05]])
    assert chart.heat(strengths) == ["##++", "--=="]
    line = chart.heat(strengths, colour=True)[0]
    assert line.startswith("\x1b[48;2;255;0;0m  \x1b[48;2;255;204;204m  ")
    assert line.endswith("\x1b[0m")


def test_the_command_draws_here_or_into_a_file(
    server: FakeServer, digit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class with its score before each; --target asks for another one."""
    assert main(["--server", server.address, "explain", digit]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{digit}: 7  100.0%, 10.0% where there is nothing"
    assert len(out) == 29
    assert set("".join(out[1:])) == {"#", " "}
    heat = tmp_path / "heat.png"
    assert main(["--server", server.address, "explain", digit, "--target", "1", "--output", str(heat)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{digit}: 1  0.0%, 0.0% where there is nothing"]
    with Image.open(heat) as picture:
        assert picture.size == (280, 280)


def test_the_command_says_what_is_not_to_be_trusted_and_prints_json(
    server: FakeServer, digit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gap above a tenth; JSON has every number."""
    assert main(["--server", server.address, "explain", digit, "--target", "9"]) == 0
    assert "not to be trusted: it misses 0.50 of the difference" in capsys.readouterr().out
    assert main(["--server", server.address, "explain", digit, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["explanations"]
    assert (found["target"], found["score"], len(found["attributions"])) == (7, 1.0, 28)


def test_a_file_that_cannot_be_written_is_wrong_use(
    server: FakeServer, digit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is the system's."""
    wrong = str(tmp_path / "nowhere" / "heat.png")
    assert main(["--server", server.address, "explain", digit, "--output", wrong]) == 2
    assert f"--output {wrong} cannot be written" in capsys.readouterr().err

"""``horngate-client infer`` with any model, and which model a command means."""

import io
import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.conftest import images
from client.fake_server import FakeServer, serve
from horngate_client.cli import main

TABLE = (("age", "FP32", (-1, 1)), ("city", "BYTES", (-1,)), ("rooms", "INT32", (-1, 2)))
ROW = {"age": 42, "city": "Ghent", "rooms": [1, 2]}


@pytest.fixture
def houses() -> Iterator[FakeServer]:
    """A model of a table: numbers as Keras has them, strings, vectors."""

    def price(inputs: Any) -> Any:
        price = inputs["age"][:, 0] + inputs["rooms"].sum(axis=1)
        return {"price": price.astype(np.float32), "city": inputs["city"]}

    outputs = (("price", "FP32", (-1,)), ("city", "BYTES", (-1,)))
    with serve(FakeServer(TABLE, outputs, price, name="houses", explains=False)) as running:
        yield running


def ask(server: FakeServer, *argv: str, stdin: Any = None, monkeypatch: pytest.MonkeyPatch | None = None) -> int:
    """Run infer; what stdin is given is piped into it."""
    if stdin is not None:
        assert monkeypatch
        data = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return main(["infer", "--server", server.address, *argv])


@pytest.mark.parametrize(
    ("stdin", "prices"),
    [
        pytest.param([ROW, {**ROW, "age": 7}], [45, 10], id="row-objects"),
        pytest.param(b'{"age": 1, "city": "a", "rooms": [0, 0]}\n{"age": 2, "city": "b", "rooms": [0, 0]}\n', [1, 2],
                     id="an-object-a-line"),
        pytest.param(ROW, [45], id="one-row"),
        pytest.param({"age": [1, 2], "city": ["a", "b"], "rooms": [[0, 0], [1, 1]]}, [1, 4], id="columns"),
        pytest.param({**ROW, "age": [42], "city": {"b64": b64encode(b"Ghent").decode()}}, [45], id="bytes"),
    ],
)  # fmt: skip
def test_rows_of_a_table_come_as_json(
    houses: FakeServer, stdin: Any, prices: list[float], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row objects or columns, from standard input; the server's only model is the one that is meant."""
    assert ask(houses, "--json", stdin=stdin, monkeypatch=monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["model"], answer["outputs"]["price"]) == ("houses", prices)


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        pytest.param([ROW, {"age": 1, "city": "a"}], "row 1 lacks 'rooms'; it has age, city", id="missing"),
        pytest.param([{**ROW, "ages": 1}], "no input 'ages'", id="unknown"),
        pytest.param([1, 2], 'write {"age": ..., "city": ..., "rooms": ...}', id="values-alone"),
        pytest.param({**ROW, "age": {"years": 3}}, '{"years": 3} stands where a value', id="nested"),
        pytest.param({**ROW, "age": "old"}, "age has the type", id="type"),
        pytest.param({**ROW, "city": {"b64": "!"}}, "is no base64", id="base64"),
        pytest.param(b"age=1", "neither .npz, .npy nor JSON", id="no-json"),
        pytest.param([], "does not say which input", id="empty"),
    ],
)
def test_what_is_wrong_with_json_is_said(
    houses: FakeServer, stdin: Any, said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2; nothing is sent."""
    assert ask(houses, stdin=stdin, monkeypatch=monkeypatch) == 2
    assert said in capsys.readouterr().err
    assert houses.count() == 0


def test_a_table_is_printed_and_inputs_come_from_files(houses: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """An .npy, a .txt with a string a line, an .npz; many rows are abbreviated."""
    np.save(tmp_path / "age.npy", np.arange(30, dtype=np.float64))
    (tmp_path / "city.txt").write_text("".join(f"town {row}\n" for row in range(30)))
    np.savez(tmp_path / "rest.npz", rooms=np.zeros((30, 2), np.int64))
    files = [f"age={tmp_path}/age.npy", f"city={tmp_path}/city.txt", f"{tmp_path}/rest.npz"]
    assert ask(houses, *(word for file in files for word in ("--input", file))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["row", "price", "(float32)", "city", "(BYTES)"]
    assert lines[2].split() == ["1", "1", '"town', '1"']
    assert lines[11] == "... 17 rows more; --json prints all of them"
    assert lines[-1].split()[0] == "29"
    assert ask(houses, "--input", f"aeg={tmp_path}/age.npy") == 2
    assert "no input 'aeg'; the model takes age: FP32 [-1, 1], city" in capsys.readouterr().err


def test_pictures_are_pixels_or_bytes_as_the_input_wants(tmp_path: Path, capsys: Any) -> None:
    """Several are several rows; a single input needs no name; long values are abbreviated."""
    for number, image in enumerate(images(2)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    files = [word for number in range(2) for word in ("--input", f"{tmp_path}/{number}.png")]
    with serve(FakeServer()) as pixels:
        assert ask(pixels, *files) == 0
        assert pixels.requests()[0].raw_input_contents[0] == images(2).tobytes()
    assert " ... " in capsys.readouterr().out.splitlines()[1]
    with serve(FakeServer((("x", "BYTES", (-1,)),), (("y", "INT64", (-1,)),), lengths)) as encoded:
        assert ask(encoded, "--json", *files) == 0
    sizes = [(tmp_path / f"{number}.png").stat().st_size for number in range(2)]
    assert json.loads(capsys.readouterr().out)["outputs"]["y"] == sizes


def lengths(inputs: Any) -> Any:
    """Return how long each string is."""
    return {"y": np.array([len(each) for each in inputs["x"]], np.int64)}


def test_another_signature_can_be_asked_for(server: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """Its inputs and outputs are the ones that count; an unknown one is refused with those that there are."""
    np.savez(tmp_path / "x.npz", images=images(1), target=[3])
    assert ask(server, "--signature", "explain", "--json", f"{tmp_path}/x.npz") == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["target"] == [3]
    assert ask(server, "--signature", "embed", f"{tmp_path}/x.npz") == 2
    assert "no signature 'embed'; it has explain" in capsys.readouterr().err


def test_predict_on_a_model_of_no_images_names_infer(houses: FakeServer, capsys: Any) -> None:
    """And what the model takes."""
    assert main(["predict", "--server", houses.address, "x.png"]) == 2
    said = capsys.readouterr().err
    assert "houses takes age: FP32 [-1, 1]; city" in said
    assert "horngate-client infer" in said


def test_the_only_model_is_meant_and_else_the_usual_one(houses: FakeServer, capsys: Any) -> None:
    """Status of a healthy server with other models is 0 and shows them; a command that needs one says which."""
    assert main(["--server", houses.address, "status"]) == 0
    assert "houses, ready" in capsys.readouterr().out
    assert main(["--server", houses.address, "--model", "nix", "status", "--model", "houses"]) == 0
    houses.others = ("flats",)
    assert main(["--server", houses.address, "status"]) == 0
    assert "the server has the models flats, houses: choose one with --model NAME" in capsys.readouterr().out
    assert main(["--server", houses.address, "predict", "x.png"]) == 2
    houses.name, houses.others = "mnist", ("flats",)
    assert main(["--server", houses.address, "status"]) == 0
    assert "mnist, ready" in capsys.readouterr().out


def test_load_sends_nothing_that_a_model_was_not_trained_for_unasked(houses: FakeServer, capsys: Any) -> None:
    """Where the server has no recorded requests, the choice is the user's."""
    argv = ["load", "--server", houses.address, "--duration", "100ms", "--warmup", "1ms", "--concurrency", "1"]
    assert main(argv) == 2
    assert "no recorded requests of houses: give rows with --input, or ask" in capsys.readouterr().err
    assert houses.count() == 0
    assert main([*argv, "--random"]) == 0

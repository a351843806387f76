"""What a training needs is known before anything is allocated, and held against what there is."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_trainer import cli, data, memory
from horngate_trainer.architectures import build
from horngate_trainer.errors import DataError
from horngate_trainer.memory import Size

MNIST = Size(train=60000, test=10000, image_shape=(28, 28), classes=10, loading_bytes=0)


def write(root: Path, **files: str) -> None:
    """Write files of a machine's /proc; _ in a name stands for /."""
    for name, content in files.items():
        path = root / name.replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("image_shape", [(28, 28), (13, 21, 3), (64, 40, 1)])
def test_the_weights_of_every_network_are_counted_before_it_is_built(
    architecture: str, image_shape: tuple[int, ...]
) -> None:
    """The formula and Keras agree, so that an estimate cannot fall behind a network that was changed."""
    model = build(architecture, image_shape, 7)
    assert memory.parameters(architecture, image_shape, 7) == model.count_params()


def test_an_estimate_grows_with_all_that_multiplies_it() -> None:
    """Images, their size, classes for the confusion matrix, the cnn's activations; not the batch beyond the data."""
    small = memory.need(MNIST, "mlp", 256, report=True).total
    assert 0.6e9 < small < 0.9e9
    large = Size(8000, 2000, (1500, 1500), 10, 0)
    assert memory.need(large, "mlp", 256, report=True).data >= 10000 * 1500 * 1500
    assert memory.need(large, "mlp", 256, report=True).total > 27e9
    assert memory.need(large, "cnn", 128, report=True).step > 128 * 1500 * 1500 * 500
    many = Size(60000, 30000, (8, 8), 30000, 0)
    assert memory.need(many, "mlp", 256, report=True).data > 30000**2 * 60
    few = Size(4, 4, (500, 500), 2, 0)
    assert memory.need(few, "mlp", 256, report=True).step == memory.need(few, "mlp", 4, report=True).step


def test_fewer_large_images_are_computed_at_once() -> None:
    """A test set is not multiplied by its activations: MNIST goes through in thousands, large images one by one."""
    assert memory.rows_at_once((28, 28)) == 1000
    assert memory.rows_at_once((224, 224, 3)) == 6
    assert memory.rows_at_once((4000, 4000, 3)) == 1


MEMINFO = "MemTotal: 16000000 kB\nMemFree: 100 kB\nMemAvailable: 8000000 kB\n"


def test_what_is_free_is_the_least_of_the_machine_and_the_groups_around_the_process(tmp_path: Path) -> None:
    """Version 2: a limit further out counts; the file cache that can be dropped is free."""
    write(tmp_path, proc_meminfo=MEMINFO, proc_self_cgroup="0::/pod/box\n")
    assert memory.available_bytes(tmp_path) == 8000000 << 10
    for group, limit in (("pod/box", "max\n"), ("pod", "3000\n")):
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("1500\n")
        (folder / "memory.stat").write_text("anon 900\ninactive_file 500\n")
    assert memory.available_bytes(tmp_path) == 2000


def test_version_1_of_control_groups_is_read_too_and_nothing_is_nothing(tmp_path: Path) -> None:
    """In a container the path is the host's, and the group's own files lie at the root."""
    assert memory.available_bytes(tmp_path) is None
    write(tmp_path, proc_self_cgroup="4:memory:/docker/abc\n0::/\n")
    folder = tmp_path / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("5000\n")
    (folder / "memory.usage_in_bytes").write_text("1000\n")
    (folder / "memory.stat").write_text("total_inactive_file 100\n")
    assert memory.available_bytes(tmp_path) == 4100


def test_too_little_memory_is_told_with_what_needs_how_much(tmp_path: Path) -> None:
    """Both numbers, the shares, and what to do; enough memory is said in a line."""
    write(tmp_path, proc_meminfo=MEMINFO)
    large = Size(8000, 2000, (1500, 1500), 10, 0)
    with pytest.raises(
        DataError, match=r"8000 \+ 2000 images of 1500x1500 need about .* GB .*8.2 GB are free here: use"
    ):
        memory.check(large, "mlp", 256, report=True, root=tmp_path)
    assert memory.check(MNIST, "mlp", 256, report=True, root=tmp_path) == (
        "memory    about 0.8 GB of 8.2 GB that are free, for 60000 + 10000 images of 28x28"
    )


def claims(path: Path, **shapes: tuple[int, ...]) -> Path:
    """Write an .npz file whose images are said to be of these shapes, and are not there."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in shapes.items():
            header = io.BytesIO()
            kind = "|u1" if name.startswith("x") else "<i8"
            np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
            labels = np.arange(shape[0]) % 10
            content = b"" if name.startswith("x") else labels.astype("<i8").tobytes()
            archive.writestr(f"{name}.npy", header.getvalue() + content)
    return path


def test_data_that_do_not_fit_are_refused_before_an_image_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The headers alone are read: the images of this file, 4.5 TB of them, are not even there."""
    shapes = {"x_train": (2000000, 1500, 1500), "y_train": (2000000,), "x_test": (20, 1500, 1500), "y_test": (20,)}
    file = claims(tmp_path / "data.npz", **shapes)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--data", str(file)]) == 2
    said = capsys.readouterr().err
    assert "2000000 + 20 images of 1500x1500 need about 45" in said
    assert said.count("\n") == 1
    few = claims(file, **{name: (20, *shape[1:]) for name, shape in shapes.items()})
    with pytest.raises(DataError, match="x_train cannot be used"):  # these would fit, so they are read
        data.load(str(few))


def test_many_classes_count(tmp_path: Path) -> None:
    """They are counted in the labels before the images are read; arrays in Fortran's order are copied once."""
    images, labels = np.zeros((60, 3, 3), np.uint8), np.arange(60) % 20
    np.savez(tmp_path / "d.npz", x_train=np.asfortranarray(images), y_train=labels, x_test=images, y_test=labels)
    seen: list[Size] = []
    data.load(str(tmp_path / "d.npz"), seen.append)
    assert [size.classes for size in seen] == [2, 20]
    assert seen[1].loading_bytes == 540 * 2 + 540 + 2 * 60 * 8 * 3


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (5, 1, 2)])
def test_the_smallest_images_are_trained_on_and_drawn(
    shape: tuple[int, ...], tmp_path: Path, write_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """One pixel is an image, as is one with two channels; the report shows it."""
    labels = np.arange(300) % 3
    images = np.broadcast_to((labels * 60).reshape(-1, *[1] * len(shape)), (300, *shape)).astype(np.uint8)
    file = write_data(x_train=images, y_train=labels, x_test=images[:90], y_test=1 - labels[:90] % 2)
    flags = ["--data", str(file), "--epochs", "1", "--min-accuracy", "0", "--output", str(tmp_path / "models")]
    assert cli.main([*flags, "--report", str(tmp_path / "report")]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["mnist-1", "tensorboard"]
    assert sorted(path.name for path in (tmp_path / "report/mnist-1").iterdir()) == [
        "confusion.png", "curves.png", "evaluation.json", "explanations.png", "index.html", "mistakes.png",
    ]  # fmt: skip
    assert "memory    about 0.7 GB" in capsys.readouterr().err

"""The wheel, as a user gets it."""

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built from this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out],
        check=True, capture_output=True, cwd=ROOT, timeout=100,
    )  # fmt: skip
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_part_with_its_data_and_types(wheel: Path) -> None:
    """Four packages, the contract, the MNIST with its licence, type markers; no tests."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in ("client", "server", "trainer", "protos"):
        assert f"horngate_{part}/__init__.py" in names
        assert f"horngate_{part}/py.typed" in names
    assert {
        "horngate_protos/contract.binpb",
        "horngate_trainer/data/mnist.npz",
        "horngate_trainer/data/LICENSE",
    } <= names
    assert not [name for name in names if "test" in name.split("/")[0]]


@pytest.mark.net
@pytest.mark.slow
def test_a_bare_installation_imports_the_client_and_no_tensorflow(wheel: Path, tmp_path: Path) -> None:
    """With no extras, in an empty environment: the client works and TensorFlow is not even installed."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    pins = tmp_path / "pins"
    lock = (ROOT / "requirements-dev.lock").read_text()
    pins.write_text(
        "\n".join(line.split(" \\")[0] for line in lock.splitlines() if line[:1].isalpha() and "==" in line)
    )
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", pins, wheel],
        check=True, capture_output=True, timeout=110,
    )  # fmt: skip
    script = (
        "import horngate_client, sys, importlib.util as u;"
        "print(horngate_client.Client.__name__, 'tensorflow' in sys.modules,"
        " *[u.find_spec(name) is not None for name in ('tensorflow', 'PIL', 'prometheus_client')])"
    )
    done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.split() == ["Client", "False", "False", "False", "False"]
    usage = subprocess.run(
        [home / "bin" / "horngate-client", "--help"], check=True, capture_output=True, text=True, timeout=60
    )
    assert "predict" in usage.stdout


@pytest.mark.parametrize(("python", "tensorflow"), [("3.11", True), ("3.13", True), ("3.14", False)])
@pytest.mark.parametrize(("machine", "build"), [("x86_64", "tensorflow-cpu"), ("aarch64", "tensorflow")])
def test_python_decides_whether_the_server_gets_tensorflow_too(
    python: str, tensorflow: bool, machine: str, build: str
) -> None:
    """LiteRT is in every server; TensorFlow is there for Python up to 3.13, and the extra `lite` never has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(f"{python}.0")
    environment = {"python_version": python, "sys_platform": "linux", "platform_machine": machine}

    def installed(extra: str) -> set[str]:
        asked = [Requirement(each) for each in project["optional-dependencies"][extra]]
        asked = [each for each in asked if each.marker is None or each.marker.evaluate(environment)]
        inner = [installed(name) for each in asked if each.name == "horngate" for name in each.extras]
        return {each.name for each in asked if each.name != "horngate"}.union(*inner)

    assert "ai-edge-litert" in installed("lite")
    assert installed("server") - installed("lite") == ({build} if tensorflow else set())
    assert installed("trainer") - installed("training") == ({build} if tensorflow else set())


def test_the_lock_file_names_no_index_and_pins_everything_with_hashes() -> None:
    """Every line is a pin, a hash or a comment; no address of a package index is in it."""
    lines = (ROOT / "requirements-dev.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
    for name in ("tensorflow-cpu", "grpcio", "numpy", "protobuf", "pytest", "ruff", "mypy"):
        assert any(pin.startswith(f"{name}==") for pin in pins), name


def test_the_lock_file_pins_versions_that_are_allowed() -> None:
    """What is installed with --no-deps is not held against them; `make lock` could no longer resolve it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *project["dependency-groups"]["dev"],
    ]
    lines = (ROOT / "requirements-dev.lock").read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines if line and not line.startswith((" ", "#")))
    refused = [
        f"{each}: pinned {pins.get(each.name)}"
        for each in map(Requirement, asked)
        if each.name != "horngate" and "and-cuda" not in each.extras and pins.get(each.name, "0") not in each.specifier
    ]
    assert not refused

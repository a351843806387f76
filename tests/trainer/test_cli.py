"""The command, as a shell sees it: stdout, stderr, exit codes, what lies on disk afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_trainer import cli, settings
from horngate_trainer.errors import SettingsError

WAIT_S = 60


def run(folder: Path, *flags: object) -> "subprocess.CompletedProcess[str]":
    """Run the command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "horngate_trainer.cli", *map(str, flags)],
        capture_output=True, text=True, check=False, cwd=folder, timeout=WAIT_S,
    )  # fmt: skip


def exported(folder: Path) -> list[Path]:
    """Find every SavedModel under a folder."""
    return list(folder.rglob("saved_model.pb"))


def test_without_tensorflow_it_says_which_pythons_have_it(tmp_path: Path) -> None:
    """As on Python 3.14, where pip installs the extra `trainer` without it."""
    script = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None;"
        "from horngate_trainer import cli; sys.exit(cli.main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=WAIT_S
    )
    assert done.returncode == cli.FAILED
    assert "pip install 'horngate[trainer]' on Python 3.11 to 3.13; this is 3." in done.stderr


@pytest.mark.parametrize("module", ["matplotlib", "tensorboard"])
def test_what_a_report_lacks_is_said_before_anything_is_loaded(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the last epoch; the extra is named, and what to do without it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["--data", "none.npz"]) == cli.FAILED
    said = capsys.readouterr().err
    assert said == (
        f"horngate-trainer: a report needs {module}, which is not installed: "
        "pip install 'horngate[trainer]', or --report none\n"
    )
    assert cli.main(["--data", "none.npz", "--report", "none"]) == cli.USAGE


@pytest.mark.parametrize(
    ("module", "said"), [("numpy", ""), ("tensorflow", "reading   m.tflite: a .tflite file, 0 kB\n")]
)
def test_ctrl_c_while_modules_are_loaded_is_quiet(module: str, said: str, tmp_path: Path) -> None:
    """Exit code 130, and not a word: a traceback from the middle of somebody's module would tell nobody anything."""
    script = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == sys.argv[1]:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from horngate_trainer import cli\n"
        "sys.exit(cli.main(['import', 'm.tflite']))\n"
    )
    (tmp_path / "m.tflite").write_bytes(b"....TFL3")
    done = subprocess.run(
        [sys.executable, "-c", script, module],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=WAIT_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (cli.INTERRUPTED, "", said)


def test_once_does_nothing_where_there_is_a_version_already(tmp_path: Path) -> None:
    """The newest one's folder is the last line on stdout, as if it had just been made; no TensorFlow is imported."""
    for number in ("2", "10"):
        (tmp_path / "models/mnist" / number).mkdir(parents=True)
    done = run(tmp_path, "--once")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "models/mnist/10\n"
    assert "there is a version already" in done.stderr


@pytest.mark.slow
def test_a_training_on_any_data_set_ends_with_an_export_and_a_report(tmp_path: Path, write_data: Any) -> None:
    """The last line on stdout is the version's path; pictures, JSON, TensorBoard logs and names are in the report."""
    names = np.array(["ant", "bee", "cat", "dog"])  # in their order, so that labels are as without names
    file = write_data(side=10, classes=4, y_train=names[np.arange(300) % 4], y_test=names[np.arange(90) % 4])
    done = run(tmp_path, "--data", file, "--name", "bands", "--epochs", 12, "--min-accuracy", "0.5", "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "models/bands/1\n"
    assert "Traceback" not in done.stderr
    assert "oneDNN" not in done.stderr
    assert done.stderr.count("epoch ") == 12
    report = tmp_path / "report"
    page = report / "bands-1" / "index.html"
    assert f"report    {page.relative_to(tmp_path)}" in done.stderr
    shown = re.findall(r'<img src="(.+?)"', page.read_text())
    assert shown[:3] == ["curves.png", "confusion.png", "mistakes.png"]
    for name in shown:
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "horngate-server --models models" in page.read_text()
    assert "<td>ant</td>" in page.read_text()
    assert (tmp_path / "models/bands/1/assets.extra/labels.txt").read_text().split() == names.tolist()
    assert list(report.glob("tensorboard/*/events.out.tfevents*"))
    card = json.loads((page.parent / "evaluation.json").read_text())
    manifest = json.loads((tmp_path / "models/bands/1/assets.extra/horngate.json").read_text())
    assert card["evaluation"] == manifest["evaluation"]
    assert np.trace(card["confusion"]) == card["evaluation"]["correct"]
    assert np.sum(card["confusion"]) == card["evaluation"]["total"] == 90
    assert manifest["training"]["seed"] == 1
    assert manifest["data"]["image_shape"] == [10, 10]
    assert manifest["data"]["names"] == names.tolist()
    assert sum(manifest["baseline"]["confidence_histogram"]["counts"]) == 90
    assert not (tmp_path / "models/bands/.training").exists()


@pytest.mark.slow
def test_a_model_below_the_minimum_is_not_exported(
    tmp_path: Path, write_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, a line that names both numbers, and no version; the training can be looked at."""
    rng = np.random.default_rng(0)
    noise = write_data(
        x_train=rng.integers(0, 255, (300, 8, 8), np.uint8), x_test=rng.integers(0, 255, (90, 8, 8), np.uint8)
    )
    assert cli.main(["--data", str(noise), "--epochs", "1", "--output", str(tmp_path / "models")]) == 1
    shown = capsys.readouterr()
    assert "less than --min-accuracy 97.00%: nothing is exported" in shown.err
    assert shown.out == ""
    assert not exported(tmp_path)


def test_bad_data_exit_2_before_tensorflow_is_even_loaded(
    tmp_path: Path, write_data: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line on stderr, nothing on stdout, nothing on disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "horngate_trainer.pipeline", None)
    assert cli.main(["--data", str(write_data(y_test=None))]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("horngate-trainer: ")
    assert shown.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def _kill_after_epoch(folder: Path, number: signal.Signals, *flags: object) -> "subprocess.CompletedProcess[str]":
    """Start a training and send it a signal when its second epoch is reported."""
    with subprocess.Popen(
        [sys.executable, "-m", "horngate_trainer.cli", *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    ) as process:  # fmt: skip
        assert process.stderr
        watchdog = threading.Timer(WAIT_S, process.kill)
        watchdog.start()
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith("epoch") and line.split()[1].startswith("2/"):
                os.kill(process.pid, number)
        watchdog.cancel()
        out, _ = process.communicate(timeout=WAIT_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, "".join(seen))


@pytest.mark.slow
def test_kill_nine_loses_at_most_one_epoch(
    tmp_path: Path, write_data: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed training goes on after its last finished epoch; test_trainers.py holds what it ends in."""
    flags = ("--data", str(write_data()), "--epochs", "150", "--seed", "3", "--min-accuracy", "0", "--report", "none")
    killed = _kill_after_epoch(tmp_path, signal.SIGKILL, *flags)
    assert killed.returncode == -signal.SIGKILL
    assert not exported(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main([*flags, "--resume"]) == 0
    resumed = capsys.readouterr().err
    first = int(resumed.split("resuming after epoch ")[1].split()[0])
    assert first >= 2
    assert resumed.count("\nepoch ") == 150 - first


@pytest.mark.slow
def test_ctrl_c_exits_130_and_says_how_to_go_on(
    tmp_path: Path, write_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback; the next step is in the message; other settings cannot resume it."""
    flags = ("--data", write_data(), "--epochs", 1500, "--report", "none")
    stopped = _kill_after_epoch(tmp_path, signal.SIGINT, *flags)
    assert stopped.returncode == 130
    assert "--resume goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    output = str(tmp_path / "models")
    assert cli.main(["--data", str(tmp_path / "data.npz"), "--epochs", "5", "--resume", "--output", output]) == 2
    assert "other settings: epochs (was 1500, is 5)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--epochs", "0"], {}, "--epochs"),
        (["--min-accuracy", "97"], {}, "--min-accuracy: a number from 0 to 1 is needed, not '97'"),
        (["--name", "a/b"], {}, "--name"),
        (["--architecture", "rnn"], {}, "--architecture"),
        ([], {"HORNGATE_EPOCHS": "many"}, "--epochs (from HORNGATE_EPOCHS)"),
        (["--epoch", "3"], {}, "unrecognized arguments: --epoch 3"),
        (["wine.keras"], {}, "`horngate-trainer import wine.keras` takes over a trained model"),
        (["--image-size", "0x3"], {}, "--image-size: a height and a width in pixels, such as 64x48"),
    ],
)
def test_wrong_settings_name_the_flag(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """The message names the flag or variable and what came."""
    with pytest.raises(SettingsError) as refused:
        settings.parse(arguments, environment)
    assert said in str(refused.value)


def test_the_contracts_flags_and_defaults_hold() -> None:
    """What the documentation promises is what an empty command line does."""
    chosen = settings.parse([], {})
    assert (str(chosen.output), chosen.name, chosen.architecture, chosen.data) == ("models", "mnist", "mlp", "builtin")
    assert (chosen.epochs, chosen.seed, chosen.min_accuracy, chosen.resume) == (10, None, 0.97, False)
    assert settings.parse(["--epochs", "3"], {"HORNGATE_EPOCHS": "4", "HORNGATE_SEED": "7"}).epochs == 3

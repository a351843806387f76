"""The trainer beside the plain Keras script: fit, whole process (export and verification included), accuracy.

python benchmarks/trainer.py [--rounds 3] [--epochs 10] [--cnn]
"""

import json
import sys
import tempfile
from pathlib import Path

import harness

ROOT = Path(__file__).parent.parent
DATA = ROOT / "trainer/horngate_trainer/data/mnist.npz"


def reference(epochs: int) -> dict[str, float]:
    """Run the plain script."""
    seconds, out = harness.timed([sys.executable, ROOT / "benchmarks/reference_script.py", DATA, epochs])
    figures = json.loads(out.splitlines()[-1])
    return {"fit": figures["fit_s"], "process": seconds, "accuracy": 100 * figures["accuracy"]}


def trainer(*flags: str) -> dict[str, float]:
    """Run the trainer; its fit's seconds, the test set after each epoch included, are in the manifest."""
    with tempfile.TemporaryDirectory() as scratch:
        seconds, out = harness.timed(
            [
                sys.executable, "-m", "horngate_trainer.cli", "--output", f"{scratch}/models",
                "--report", f"{scratch}/report", *flags,
            ]
        )  # fmt: skip
        manifest = json.loads(Path(out.splitlines()[-1], "assets.extra/horngate.json").read_text())
    return {
        "fit": manifest["training"]["seconds"],
        "process": seconds,
        "accuracy": 100 * manifest["evaluation"]["accuracy"],
    }


def main() -> None:
    """Measure, print, save."""
    parser = harness.options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cnn", action="store_true", help="train the convolutional network too, minutes")
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()
    epochs = ("--epochs", str(asked.epochs), "--min-accuracy", "0.9")
    values = harness.rounds(
        asked.rounds,
        {"plain Keras script": lambda: reference(asked.epochs), "horngate-trainer": lambda: trainer(*epochs)},
    )
    figures = [
        harness.Figures("fit", values["fit"]),
        harness.Figures("whole process", values["process"]),
        harness.Figures("test accuracy", values["accuracy"], "%"),
    ]
    if asked.cnn:
        cnn = harness.rounds(1, {"horngate-trainer cnn": lambda: trainer("--architecture", "cnn")})
        figures.append(harness.Figures("whole process, cnn", cnn["process"]))
        figures.append(harness.Figures("test accuracy, cnn", cnn["accuracy"], "%"))
    ratios = {figure.name: figure.ratio("horngate-trainer", "plain Keras script") for figure in figures[:2]}
    print(harness.table(figures))
    print("ratios to the plain script:", ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()))
    if asked.save:
        shown = {figure.name: figure.values for figure in figures}
        print(harness.save("trainer", {"ratios": ratios, "figures": shown}))


if __name__ == "__main__":
    main()

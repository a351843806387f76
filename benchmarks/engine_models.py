"""Models for both engines, written by the trainer's `export` as ROOT/<name>/1.

python benchmarks/engine_models.py ROOT NAME...
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import keras
import numpy as np

import horngate_trainer
from horngate_trainer.architectures import build
from horngate_trainer.data import load


def digits(architecture: str) -> tuple[keras.Model, np.ndarray]:
    """Return a model of digits that has seen a few, and examples."""
    data = load("builtin")
    model = build(architecture, (28, 28), 10)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.x_train[:6000] / 255.0, data.y_train[:6000], epochs=1, verbose=0)
    return model, data.x_test[:40]


def mobilenet() -> tuple[keras.Model, np.ndarray]:
    """Return Keras' MobileNetV2, untrained, and examples."""
    image = keras.Input((224, 224, 3), name="images")
    probabilities = keras.applications.MobileNetV2(weights=None)(image)
    examples = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3)).astype(np.uint8)
    return keras.Model(image, {"probabilities": probabilities}), examples


def main() -> None:
    """Write them."""
    root = Path(sys.argv[1])
    for name in sys.argv[2:]:
        keras.utils.set_random_seed(1)
        model, examples = mobilenet() if name == "mobilenet" else digits(name)
        version = horngate_trainer.export(
            model, root, name=name, examples=examples, dtypes={"images": "uint8"}, divisors={"images": 255}
        )
        print("wrote", version, flush=True)


if __name__ == "__main__":
    main()

"""Writes the models: python -m support.any_models ROOT [NAME ...]."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import numpy as np
import tensorflow as tf

from support.any_models import KINDS, Kind, answers


def answered(folder: Path, kind: Kind) -> list[Mapping[str, answers.Array]]:
    """Return what TensorFlow answers to each of a kind's requests, run alone."""
    found: list[Mapping[str, answers.Array]] = []
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, list(kind.tags), str(folder))
        defined = {key: value for key, value in loaded.signature_def.items() if not key.startswith("__")}
        default = kind.options.get("signature") or ("serving_default" if "serving_default" in defined else min(defined))
        for ask in kind.asks:
            signature = defined[ask.signature or str(default)]
            names = {name: info.name for name, info in signature.outputs.items()}
            inputs = {signature.inputs[name].name: array for name, array in ask.inputs.items()}
            out = session.run(list(names.values()), inputs)
            types = {name: tf.as_dtype(info.dtype) for name, info in signature.outputs.items()}
            found.append(
                {
                    name: np.asarray(array, object if types[name] == tf.string else None)
                    for name, array in zip(names, out, strict=True)
                }
            )
    return found


def main(root: Path, names: list[str]) -> None:
    """Write every model, or these."""
    for name in names or KINDS:
        kind = KINDS[name]
        folder = root / name / "1"
        kind.write(folder)
        answers.write(root, kind, answered(folder, kind))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

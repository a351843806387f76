"""A Keras model as a SavedModel on disk, and back: the serving graph, and the predictions of what was written.

The graph holds no Python function, no optimizer and no variable that it does not read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_trainer.errors import ExportError

SIGNATURE = "serving_default"

Tensors = Mapping[str, npt.NDArray[Any]]
Predict = Callable[[Tensors], dict[str, npt.NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Servable:
    """How a Keras model is served: what is done to its inputs inside the graph, and what its outputs are called.

    Attributes:
        model: the model with its inputs and outputs as flat lists.
        inputs: name, dtype and shape of each input on the wire, in the model's order; the first axis is None.
        divisors: what an input is divided by after its cast to the model's own dtype.
        outputs: names of the model's outputs, in its order.
        classes_of: the output whose largest entry's index along the last axis becomes the output ``classes``.
    """

    model: Any
    inputs: tuple[tuple[str, str, tuple[int | None, ...]], ...]
    divisors: Mapping[str, float]
    outputs: tuple[str, ...]
    classes_of: str | None

    def predict(self, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        """What the Keras model itself answers: preprocessing in NumPy, no graph."""
        values = []
        for (name, _, _), tensor in zip(self.inputs, self.model.inputs, strict=True):
            value = tensors[name].astype(tensor.dtype)
            values.append(value / value.dtype.type(self.divisors[name]) if name in self.divisors else value)
        answers = self.model(values, training=False)
        answers = answers if isinstance(answers, list) else [answers]
        result = {name: np.asarray(answer) for name, answer in zip(self.outputs, answers, strict=True)}
        if self.classes_of is not None:
            result["classes"] = np.argmax(result[self.classes_of], axis=-1)
        return result

    def write(self, path: Path) -> None:
        """Write the SavedModel into an existing folder.

        Raises:
            ExportError: TensorFlow could not write it.
        """
        signature = [tf.TensorSpec(shape, dtype, name) for name, dtype, shape in self.inputs]
        function = tf.function(self._serve, input_signature=signature, autograph=False)
        module = tf.Module()
        try:
            concrete = function.get_concrete_function()
            # In the model's order: the graph's own is arbitrary, and equal models should be equal files.
            read = {id(variable) for variable in concrete.graph.variables}
            module.parameters = [each.value for each in self.model.variables if id(each.value) in read]
            assert len(module.parameters) == len(read)
            tf.saved_model.save(module, str(path), signatures={SIGNATURE: concrete})
        except (tf.errors.OpError, OSError) as exc:
            raise ExportError(f"cannot write the SavedModel: {str(exc).splitlines()[0]}") from exc

    def _serve(self, *tensors: Any) -> dict[str, Any]:
        values = []
        for (name, _, _), wanted, tensor in zip(self.inputs, self.model.inputs, tensors, strict=True):
            value = tensor if tensor.dtype == wanted.dtype else tf.cast(tensor, wanted.dtype)
            values.append(value / self.divisors[name] if name in self.divisors else value)
        answers = self.model(values, training=False)
        answers = answers if isinstance(answers, list) else [answers]
        result = dict(zip(self.outputs, answers, strict=True))
        if self.classes_of is not None:
            result["classes"] = tf.argmax(result[self.classes_of], axis=-1, output_type=tf.int64)
        return result


def servable(
    model: Any,
    *,
    dtypes: Mapping[str, str],
    divisors: Mapping[str, float],
    classes_of: str | None,
) -> Servable:
    """Work out how a Keras model is served.

    Raises:
        ExportError: the model has no declared inputs, lacks a batch axis, or an option names what it does not have.
    """
    try:
        flat = keras.Model(model.inputs, model.outputs)
    except (AttributeError, TypeError, ValueError) as exc:
        raise ExportError("the model declares no inputs: build it with keras.Input, or as a Sequential") from exc
    inputs = {tensor.name: tensor for tensor in model.inputs}
    outputs = _output_names(model)
    for kind, tensors in (
        ("input", zip(inputs, model.inputs, strict=True)),
        ("output", zip(outputs, model.outputs, strict=True)),
    ):
        for name, tensor in tensors:
            if not tensor.shape or tensor.shape[0] is not None:
                raise ExportError(f"{kind} {name!r} has shape {tensor.shape}: its first axis must be the batch, None")
    for option, names in (("dtypes", dtypes), ("divisors", divisors)):
        unknown = sorted(set(names) - set(inputs))
        if unknown:
            raise ExportError(f"{option} names {unknown[0]!r}; the model's inputs are {', '.join(inputs)}")
    if classes_of is not None and (classes_of not in outputs or "classes" in outputs):
        raise ExportError(f"classes_of={classes_of!r} cannot be added to the model's outputs {', '.join(outputs)}")
    return Servable(
        model=flat,
        inputs=tuple((name, dtypes.get(name, tensor.dtype), tuple(tensor.shape)) for name, tensor in inputs.items()),
        divisors=dict(divisors),
        outputs=outputs,
        classes_of=classes_of,
    )


def reload(path: Path) -> Predict:
    """Read a SavedModel back and return its predictions by name."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures[SIGNATURE]

    def predict(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        del_guard = loaded  # the signature holds its variables only weakly
        answers = signature(**{name: tf.constant(value) for name, value in tensors.items()})
        assert del_guard is loaded
        return {name: answer.numpy() for name, answer in answers.items()}

    return predict


# --- private ---------------------------------------------------------------------------------------------------------


def _output_names(model: Any) -> tuple[str, ...]:
    """The keys of a model that answers with a dict, else the names of the layers that compute its outputs."""
    structure = getattr(model, "_outputs_struct", None)
    if isinstance(structure, dict) and len(structure) == len(model.outputs):
        # Keras flattens a dict by sorted key.
        return tuple(sorted(structure))
    names = tuple(str(name) for name in keras.Model(model.inputs, model.outputs).output_names)
    if len(set(names)) < len(names):
        raise ExportError(f"outputs share names ({', '.join(names)}): let the model answer with a dict of outputs")
    return names

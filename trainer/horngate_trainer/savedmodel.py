"""A Keras model as a SavedModel on disk: how it is served, and the serving graph.

The graph holds no Python function, no optimizer and no variable that it does not read.
"""

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_trainer import canonical
from horngate_trainer.errors import ExportError, first_line
from horngate_trainer.written import SIGNATURE, Answers, Effects, Tensors, as_array, effects, reload

TRACING_ERRORS = (tf.errors.OpError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
"""What layers raise where they cannot compute what they are given."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input on the wire.

    Attributes:
        name: any text.
        dtype: TensorFlow's name of it, as ``float32`` or ``string``.
        shape: with None where any length will do.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def in_rows(self) -> bool:
        """Whether its first axis is the batch, of any number of rows."""
        return bool(self.shape) and self.shape[0] is None


@dataclass(frozen=True, slots=True)
class Servable:
    """How a Keras model is served: what is done to its inputs inside the graph, and what its outputs are called.

    Attributes:
        model: the model with its inputs and outputs as flat lists.
        inputs: as on the wire, in the model's order.
        divisors: what an input is divided by after its cast to the model's own dtype.
        outputs: names of the model's outputs, in its order.
        classes_of: the output whose largest entry's index along the last axis becomes the output ``classes``.
    """

    model: Any
    inputs: tuple[Input, ...]
    divisors: Mapping[str, float]
    outputs: tuple[str, ...]
    classes_of: str | None

    def predict(self, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        """What the Keras model itself answers: preprocessing in NumPy, no graph."""
        values = []
        for each, tensor in zip(self.inputs, self.model.inputs, strict=True):
            value = tensors[each.name]
            if tensor.dtype != "string":
                value = value.astype(tensor.dtype)
            if each.name in self.divisors:
                value = value / value.dtype.type(self.divisors[each.name])
            values.append(tf.constant(value, tensor.dtype))
        answers = self.model(values, training=False)
        answers = answers if isinstance(answers, list) else [answers]
        result = {name: as_array(answer.numpy()) for name, answer in zip(self.outputs, answers, strict=True)}
        if self.classes_of is not None:
            result["classes"] = np.argmax(result[self.classes_of], axis=-1)
        return result

    def fits(self, tensors: Tensors) -> bool:
        """Whether Keras's arithmetic of shapes takes these inputs; False only where it says that it does not.

        TensorFlow does not always ask: oneDNN's convolutions answer inputs that are too small with what was in memory.
        """
        try:
            self.model.compute_output_shape([tensors[each.name].shape for each in self.inputs])
        except ValueError:
            return False
        except Exception:  # noqa: BLE001 - a layer of the user's may raise anything, and then has said nothing
            return True
        return True

    @property
    def half(self) -> bool:
        """Whether some of it computes in half precision."""
        kinds = {str(layer.compute_dtype) for layer in _layers(self.model)} | {str(x.dtype) for x in self.model.outputs}
        return bool(kinds & {"float16", "bfloat16"})

    @property
    def signature(self) -> str:
        """The name of the signature that answers callers who name none."""
        return SIGNATURE

    def reload(self, path: Path) -> AbstractContextManager[Answers]:
        """Read what was written back, and yield what answers for it."""
        return reload(path)

    def arguments(self) -> tuple[Mapping[str, str], list[Any]]:
        """Return what the inputs are called in Python, with their own names, and TensorFlow's specs of them."""
        names = {_python_name(number, each.name): each.name for number, each in enumerate(self.inputs)}
        specs = [tf.TensorSpec(each.shape, each.dtype, name) for name, each in zip(names, self.inputs, strict=True)]
        return names, specs

    def write(self, path: Path, others: Mapping[str, Any]) -> Effects:
        """Write the SavedModel into an existing folder.

        Args:
            path: the folder.
            others: signatures beside the default one: traced functions of the same model.

        Returns:
            What the default one does beside computing.

        Raises:
            ExportError: Keras could not compute it, or TensorFlow could not write it.
        """
        names, specs = self.arguments()
        function = tf.function(self._serve, input_signature=specs, autograph=False)
        try:
            concrete = function.get_concrete_function()
        except TRACING_ERRORS as exc:
            raise ExportError(f"the model cannot be computed as a graph: {first_line(exc)}") from exc
        found = effects(concrete.graph)
        found.refuse_python()
        module = tf.Module()
        # In the model's order: the graph's own is arbitrary, and equal models should be equal files.
        read = {id(variable): variable for variable in found.variables}
        module.parameters = [read.pop(id(each.value)) for each in self.model.variables if id(each.value) in read]
        module.others = sorted(read.values(), key=lambda variable: str(variable.name))  # such as the global seed
        module.tables = _tables(self.model)
        try:
            tf.saved_model.save(module, str(path), signatures={SIGNATURE: concrete, **others})
            canonical.rewrite(path, names)
        except (tf.errors.OpError, OSError) as exc:
            raise ExportError(f"cannot write the SavedModel: {first_line(exc)}") from exc
        except (AssertionError, ValueError) as exc:  # TensorFlow's words for what cannot be put into a file
            raise ExportError(f"the model cannot be written as a SavedModel: {first_line(exc)}") from exc
        return found

    def preprocessed(self, tensors: Sequence[Any]) -> list[Any]:
        """Return what the model itself is given for inputs as they come over the wire."""
        values = []
        for each, wanted, tensor in zip(self.inputs, self.model.inputs, tensors, strict=True):
            value = tensor if tensor.dtype == wanted.dtype else tf.cast(tensor, wanted.dtype)
            values.append(value / self.divisors[each.name] if each.name in self.divisors else value)
        return values

    def outputs_of(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return what the model itself answers, by name."""
        answers = self.model(list(values), training=False)
        return dict(zip(self.outputs, answers if isinstance(answers, list) else [answers], strict=True))

    def _serve(self, *tensors: Any) -> dict[str, Any]:
        result = self.outputs_of(self.preprocessed(tensors))
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
        ExportError: it is no Keras model, declares no inputs, or an option names what it does not have.
    """
    if not isinstance(model, keras.Model):
        if isinstance(model, str | Path):
            raise ExportError(
                f"a Keras model is needed, not the path {str(model)!r}: `horngate-trainer import {model}` exports what "
                "lies there (.keras, .h5, a SavedModel, .tflite); keras.models.load_model reads a Keras file"
            )
        raise ExportError(f"a Keras model is needed, not a {type(model).__name__}")
    try:
        flat = keras.Model(model.inputs, model.outputs, name=model.name)  # a name of its own would count up
    except (AttributeError, TypeError, ValueError) as exc:
        raise ExportError(
            "the model declares no inputs: build it with keras.Input, or as a Sequential; a model that is a class of "
            "its own goes by its SavedModel: model.export('folder'), then `horngate-trainer import folder`"
        ) from exc
    names = [str(tensor.name) for tensor in model.inputs]
    if len(set(names)) < len(names):
        raise ExportError(f"inputs share names ({', '.join(names)}): give each keras.Input a name of its own")
    inputs = dict(zip(names, model.inputs, strict=True))
    outputs = _output_names(model, flat)
    _check(inputs, dtypes, divisors)
    if classes_of is not None:
        ranks = {name: len(tensor.shape) for name, tensor in zip(outputs, model.outputs, strict=True)}
        if not ranks.get(classes_of) or "classes" in outputs:
            raise ExportError(f"classes_of={classes_of!r} cannot be added to the model's outputs {', '.join(outputs)}")
    wire = tuple(
        Input(name, _dtype(name, dtypes, tensor.dtype), tuple(tensor.shape)) for name, tensor in inputs.items()
    )
    return Servable(model=flat, inputs=wire, divisors=dict(divisors), outputs=outputs, classes_of=classes_of)


# --- private ---------------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")

_STAND_IN = "horngate_input_"


def _python_name(number: int, name: str) -> str:
    """Return the name itself where TensorFlow's Python takes it, else one that it takes."""
    taken = _PLAIN.fullmatch(name) and not keyword.iskeyword(name) and name != "self"
    return name if taken and not name.startswith(_STAND_IN) else f"{_STAND_IN}{number}"


def _check(inputs: Mapping[str, Any], dtypes: Any, divisors: Any) -> None:
    """Refuse options that do not fit the model's inputs.

    Raises:
        ExportError: the text says which, and what there is.
    """
    for option, mapping in (("dtypes", dtypes), ("divisors", divisors)):
        if not isinstance(mapping, Mapping):
            raise ExportError(f"{option} must be a dict by the inputs' names, not {mapping!r}")
        if unknown := [name for name in mapping if name not in inputs]:
            raise ExportError(f"{option} names {unknown[0]!r}; the model's inputs are {', '.join(inputs)}")
    for name, divisor in divisors.items():
        if not isinstance(divisor, int | float | np.number) or not np.isfinite(divisor) or not divisor:
            raise ExportError(f"divisors[{name!r}] must be a number other than zero, not {divisor!r}")
        if not tf.as_dtype(inputs[name].dtype).is_floating:
            raise ExportError(f"divisors: the model takes {name!r} as {inputs[name].dtype}, which cannot be divided")


def _dtype(name: str, dtypes: Mapping[str, str], own: str) -> str:
    try:
        return str(tf.as_dtype(dtypes.get(name, own)).name)
    except TypeError as exc:
        raise ExportError(f"dtypes[{name!r}] must be a dtype such as 'uint8', not {dtypes.get(name, own)!r}") from exc


def _layers(model: Any) -> list[Any]:
    """Every layer in a model, those inside of layers too."""
    found = list(model._flatten_layers(include_self=True, recursive=True))  # noqa: SLF001 - Keras has no public walk
    return list({id(layer): layer for layer in found}.values())


def _tables(model: Any) -> list[Any]:
    """The lookup tables that layers hold, such as a vocabulary: a file has what hangs on an object, and no more."""
    seen: set[int] = set()
    return [table for layer in _layers(model) for table in _tables_in(vars(layer), seen)]


def _tables_in(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the tables that a value is, or holds; each once."""
    if id(value) in seen:
        return
    if isinstance(value, tf.saved_model.experimental.TrackableResource):
        seen.add(id(value))
        yield value
    elif isinstance(value, Mapping | list | tuple):
        seen.add(id(value))
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tables_in(each, seen)


def _output_names(model: Any, flat: Any) -> tuple[str, ...]:
    """The keys of a model that answers with a dict, else the names of the layers that compute its outputs."""
    structure = getattr(model, "_outputs_struct", None)
    if isinstance(structure, dict) and len(structure) == len(model.outputs):
        # Keras flattens a dict by sorted key.
        return tuple(sorted(structure))
    names = tuple(str(name) for name in flat.output_names)
    if len(set(names)) < len(names):
        raise ExportError(f"outputs share names ({', '.join(names)}): let the model answer with a dict of outputs")
    return names

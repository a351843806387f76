"""TensorProto beside what lies in memory: written as every part writes it, and read back as an array."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horngate_protos.datatypes import BY_TENSORFLOW, BYTES, Datatype, tensorflow_name
from horngate_protos.tensorflow_pb2 import TensorProto


def fill(tensor: TensorProto, datatype: Datatype, shape: Sequence[int], elements: bytes | Sequence[bytes]) -> None:
    """Write a tensor into an empty message: numbers as ``tensor_content``, strings as ``string_val``.

    Args:
        tensor: the message.
        datatype: of the elements.
        shape: all axes.
        elements: row-major: numbers as little-endian bytes, strings one by one.
    """
    tensor.dtype = datatype.tensorflow
    tensor.tensor_shape.SetInParent()  # a scalar has a shape, too
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if isinstance(elements, bytes):
        tensor.tensor_content = elements
    else:
        tensor.string_val.extend(elements)


def typed_numbers(tensor: TensorProto, datatype: Datatype) -> bytes:
    """Return the numbers of a tensor's typed list, as many as there are, as little-endian bytes.

    Raises:
        ValueError: pairs that lack a half, or values that the type has not.
    """
    values = getattr(tensor, datatype.values)
    kind: np.dtype[np.generic] = _TYPED.get(datatype.values, datatype.numpy)
    if len(values) * kind.itemsize % datatype.numpy.itemsize:
        raise ValueError(f"has {len(values)} values in {datatype.values}; expected pairs")
    try:
        return np.array(values[:], kind).tobytes()  # a list: protobuf 7 hands over arrays, which wrap around
    except OverflowError as error:
        raise ValueError(f"has a value in {datatype.values} out of {datatype.name}'s range") from error


def array_of(name: str, tensor: TensorProto) -> tuple[Datatype, NDArray[Any]]:
    """Return a recorded tensor's type, and its elements as these lie in memory: BF16 as uint16, BYTES as objects.

    The last of too few values stands for all that are missing, as for TensorFlow.

    Raises:
        ValueError: it is none that can be sent again; the text begins with its name.
    """
    datatype = BY_TENSORFLOW.get(tensor.dtype)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if datatype is None or tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise ValueError(f"{name} is {tensorflow_name(tensor.dtype)} {list(shape)}; expected a type and axes of ours")
    count = prod(shape)
    if datatype is BYTES:
        elements = list(tensor.string_val)
        array: NDArray[Any] = np.empty(len(elements), object)
        array[:] = elements
    else:
        data = tensor.tensor_content or typed_numbers(tensor, datatype)
        if len(data) % datatype.numpy.itemsize:
            raise ValueError(f"{name} has {len(data)} bytes, which are no {datatype.name}")
        array = np.frombuffer(data, datatype.numpy)
    if not tensor.tensor_content and 0 < len(array) < count:
        array = np.append(array, np.repeat(array[-1:], count - len(array)))
    if len(array) != count:
        raise ValueError(f"{name} has {len(array)} values; expected {count}, as {list(shape)} has")
    return datatype, array.reshape(shape)


# --- private ------------------------------------------------------------------------------------------

_TYPED: dict[str, np.dtype[np.generic]] = {
    "half_val": np.dtype("<u2"),
    "scomplex_val": np.dtype("<f4"),
    "dcomplex_val": np.dtype("<f8"),
}
"""How lists hold what is no element: half floats as their bits, in integers; complex numbers as pairs."""

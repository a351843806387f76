"""Datatypes: the Open Inference Protocol's names beside TensorFlow's and NumPy's, and TensorFlow's complex numbers."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Datatype:
    """One element type.

    Attributes:
        name: the Open Inference Protocol's name, as in ``TensorMetadata.datatype``.
        tensorflow: TensorFlow's number for it (``tensorflow.DataType``).
        numpy: how an element lies in memory, little-endian. BF16 lies in a uint16: NumPy has no such type. An element
            of BYTES is an object, of the type bytes.
        values: the field of ``TensorProto`` that carries it typed; half floats as their 16 bits, complex numbers as
            pairs.
        contents: the field of ``InferTensorContents`` that carries it typed; None where it only travels raw.
    """

    name: str
    tensorflow: int
    numpy: np.dtype[np.generic]
    values: str
    contents: str | None


DATATYPES = (
    Datatype("BOOL", 10, np.dtype(np.bool_), "bool_val", "bool_contents"),
    Datatype("UINT8", 4, np.dtype(np.uint8), "int_val", "uint_contents"),
    Datatype("UINT16", 17, np.dtype("<u2"), "int_val", "uint_contents"),
    Datatype("UINT32", 22, np.dtype("<u4"), "uint32_val", "uint_contents"),
    Datatype("UINT64", 23, np.dtype("<u8"), "uint64_val", "uint64_contents"),
    Datatype("INT8", 6, np.dtype(np.int8), "int_val", "int_contents"),
    Datatype("INT16", 5, np.dtype("<i2"), "int_val", "int_contents"),
    Datatype("INT32", 3, np.dtype("<i4"), "int_val", "int_contents"),
    Datatype("INT64", 9, np.dtype("<i8"), "int64_val", "int64_contents"),
    Datatype("FP16", 19, np.dtype("<f2"), "half_val", None),
    Datatype("BF16", 14, np.dtype("<u2"), "half_val", None),
    Datatype("FP32", 1, np.dtype("<f4"), "float_val", "fp32_contents"),
    Datatype("FP64", 2, np.dtype("<f8"), "double_val", "fp64_contents"),
)
"""Numbers that every protocol has."""
COMPLEX = (
    Datatype("COMPLEX64", 8, np.dtype("<c8"), "scomplex_val", None),
    Datatype("COMPLEX128", 18, np.dtype("<c16"), "dcomplex_val", None),
)
"""Numbers that only TensorFlow Serving's protocol has; the names are ours."""
BYTES = Datatype("BYTES", 7, np.dtype(object), "string_val", "bytes_contents")
"""Strings of bytes, each of any length: TensorFlow's DT_STRING."""

BY_NAME = {datatype.name: datatype for datatype in (*DATATYPES, *COMPLEX, BYTES)}
BY_TENSORFLOW = {datatype.tensorflow: datatype for datatype in BY_NAME.values()}
BY_NUMPY = {datatype.numpy: datatype for datatype in DATATYPES if datatype.name != "BF16"}

_TENSORFLOW_NAMES = (
    "DT_INVALID", "DT_FLOAT", "DT_DOUBLE", "DT_INT32", "DT_UINT8", "DT_INT16", "DT_INT8", "DT_STRING", "DT_COMPLEX64",
    "DT_INT64", "DT_BOOL", "DT_QINT8", "DT_QUINT8", "DT_QINT32", "DT_BFLOAT16", "DT_QINT16", "DT_QUINT16", "DT_UINT16",
    "DT_COMPLEX128", "DT_HALF", "DT_RESOURCE", "DT_VARIANT", "DT_UINT32", "DT_UINT64", "DT_FLOAT8_E5M2",
    "DT_FLOAT8_E4M3FN", "DT_FLOAT8_E4M3FNUZ", "DT_FLOAT8_E4M3B11FNUZ", "DT_FLOAT8_E5M2FNUZ", "DT_INT4", "DT_UINT4",
    "DT_INT2", "DT_UINT2", "DT_FLOAT4_E2M1FN",
)  # fmt: skip
_REFERENCE = 100
"""What TensorFlow adds to a type's number for a reference to a variable of it."""


def tensorflow_name(number: int) -> str:
    """Return TensorFlow's name of one of its types, such as ``"DT_FLOAT"``, whether or not there is a `Datatype`."""
    place, suffix = (number, "") if number < _REFERENCE else (number - _REFERENCE, "_REF")
    if 0 <= place < len(_TENSORFLOW_NAMES):
        return _TENSORFLOW_NAMES[place] + suffix
    return f"DataType {number}, which TensorFlow does not define"

"""TensorFlow's strings (TF_TString) from and to Python's bytes.

Their layout, 24 bytes each, is part of TensorFlow's C interface (``tensorflow/core/platform/ctstring_internal.h``): the
lowest two bits of the first byte tell the type; short strings, of up to 22 bytes, lie inside.
"""

import ctypes
from collections.abc import Sequence

import numpy as np

from horngate_server.core.model import Array
from horngate_server.runtimes.tensorflow.capi import library

ITEM_BYTES = 24
INLINE_BYTES = 22


def write(elements: Sequence[bytes], memory: Array) -> list[int]:
    """Write strings as TF_TStrings.

    Args:
        elements: the strings; each is copied once.
        memory: uint8, `ITEM_BYTES` for each, all of them zero.

    Returns:
        the places of those that have memory of their own, for `free`.
    """
    lengths = list(map(len, elements))
    items = memory.reshape(-1, ITEM_BYTES)
    if max(lengths, default=0) <= INLINE_BYTES:
        items[:, 0] = np.array(lengths, np.uint8) << 2  # the type of short ones is 0
        items[:, 1 : INLINE_BYTES + 1] = np.array(elements, f"S{INLINE_BYTES}").view(np.uint8).reshape(-1, INLINE_BYTES)
        return []
    tf = library()
    address = memory.ctypes.data
    large = []
    for place, element in enumerate(elements):
        tf.TF_StringCopy(address + place * ITEM_BYTES, element, lengths[place])
        if lengths[place] > INLINE_BYTES:
            large.append(place)
    return large


def free(address: int, places: Sequence[int]) -> None:
    """Free what `write` took for some strings."""
    tf = library()
    for place in places:
        tf.TF_StringDealloc(address + place * ITEM_BYTES)


def read(address: int, count: int) -> list[bytes]:
    """Return so many strings that lie at an address; each is copied once."""
    tf = library()
    raw = ctypes.string_at(address, count * ITEM_BYTES)
    elements = []
    for start in range(0, count * ITEM_BYTES, ITEM_BYTES):
        head = raw[start]
        if head & 3:
            item = address + start
            elements.append(ctypes.string_at(tf.TF_StringGetDataPointer(item), tf.TF_StringGetSize(item)))
        else:
            elements.append(raw[start + 1 : start + 1 + (head >> 2)])
    return elements

"""TFRecord files, and the tensors in them: read as they were written, by others too; damage is found."""

import io

import numpy as np
import pytest

from horngate_protos import tfrecords
from horngate_protos.datatypes import BY_NAME, BYTES
from horngate_protos.tensor_protos import array_of, fill
from horngate_protos.tensorflow_pb2 import TensorProto, TensorShapeProto


def unmasked(data: bytes) -> int:
    """Return a checksum without TFRecord's mask."""
    turned = (tfrecords.masked_crc(data) - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF


def test_crc32c_matches_published_check_values() -> None:
    """The Castagnoli CRC of the usual nine digits, and of RFC 3720's 32 zeros."""
    assert unmasked(b"123456789") == 0xE3069283
    assert unmasked(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("size", [47, 48, 512, 513, 1027, 99_991])
def test_long_checksums_are_those_of_a_loop_over_the_bytes(size: int) -> None:
    """Parts side by side give what one byte after the other gives."""
    data = np.random.default_rng(size).bytes(size)
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert unmasked(data) == crc ^ 0xFFFFFFFF


def test_records_come_back_and_a_torn_one_is_told_apart_from_a_damaged_one() -> None:
    """Whole records are read before either is found; a length that is damaged takes no memory."""
    records = [b"", b"one", bytes(5000)]
    data = b"".join(map(tfrecords.framed, records))
    assert list(tfrecords.payloads(io.BytesIO(data))) == records
    for cut in (1, 13, len(data) - 20, len(data) - 1):
        with pytest.raises(tfrecords.Damaged, match="damaged at byte") as torn:
            list(tfrecords.payloads(io.BytesIO(data[:cut])))
        assert torn.value.torn
    flipped = bytearray(data)
    flipped[20] ^= 1
    reader = tfrecords.payloads(io.BytesIO(bytes(flipped)))
    assert next(reader) == b""
    with pytest.raises(tfrecords.Damaged, match="damaged at byte 16") as damaged:
        next(reader)
    assert not damaged.value.torn
    huge = (1 << 60).to_bytes(8, "little") + bytes(8)
    with pytest.raises(tfrecords.Damaged):
        list(tfrecords.payloads(io.BytesIO(huge), checked=False))


@pytest.mark.parametrize("name", ["FP32", "BF16", "UINT8", "BOOL", "COMPLEX64"])
def test_numbers_come_back_as_they_were_written(name: str) -> None:
    """All types travel as their bytes."""
    datatype = BY_NAME[name]
    array = np.arange(6).reshape(2, 3).astype(datatype.numpy)
    tensor = TensorProto()
    fill(tensor, datatype, array.shape, array.tobytes())
    kind, back = array_of("x", tensor)
    assert (kind, back.tolist()) == (datatype, array.tolist())


def test_strings_come_back_and_what_others_write_is_read() -> None:
    """Empty strings too; TensorFlow's typed lists, whose last value stands for those that are missing."""
    tensor = TensorProto()
    fill(tensor, BYTES, (2,), [b"", b"\xff"])
    assert array_of("x", tensor)[1].tolist() == [b"", b"\xff"]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=3)])
    typed = TensorProto(dtype=1, tensor_shape=shape, float_val=[1.0, 2.0])
    assert array_of("x", typed)[1].tolist() == [1.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="x has 0 values; expected 3"):
        array_of("x", TensorProto(dtype=1, tensor_shape=shape))
    with pytest.raises(ValueError, match="DT_RESOURCE"):
        array_of("x", TensorProto(dtype=20, tensor_shape=shape))

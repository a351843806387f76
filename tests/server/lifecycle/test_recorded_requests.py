"""What callers may have of a version's recorded requests."""

import numpy as np

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.lifecycle.recorded_requests import MOST_BYTES, sample
from horngate_server.lifecycle.verification import Record

SIGNATURE = Signature("serving_default", (TensorSpec("x", BY_NAME["FP32"], (-1, 1024)),), ())


def test_no_more_than_128_kib_are_kept_and_a_large_request_is_cut_to_its_first_rows() -> None:
    """Where requests go whole, one that is too large is left out."""
    records = [Record([np.full((rows, 1024), rows, np.float32)], None) for rows in (10, 1000, 5)]
    kept = [each["x"] for each in sample(records, SIGNATURE, rows=True)]
    assert [len(each) for each in kept] == [10, 22]
    assert sum(each.nbytes for each in kept) == MOST_BYTES
    assert [len(each["x"]) for each in sample(records, SIGNATURE, rows=False)] == [10]


def test_strings_count_by_their_bytes() -> None:
    """And are kept as they are."""
    signature = Signature("serving_default", (TensorSpec("text", BY_NAME["BYTES"], (-1,)),), ())
    texts = np.array([b"a" * MOST_BYTES, b"b"], object)
    [kept] = sample([Record([texts[1:]], None), Record([texts], None)], signature, rows=True)
    assert kept["text"].tolist() == [b"b"]

"""A SavedModel in a TensorFlow session: the `model.Model` that serves."""

import ctypes
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_char_p, c_int64, c_void_p
from math import prod
from pathlib import Path

import numpy as np

from horngate_protos.datatypes import BY_TENSORFLOW
from horngate_protos.tensorflow_pb2 import ConfigProto, MetaGraphDef, SignatureDef, TensorInfo
from horngate_server import native_log
from horngate_server.errors import ModelError, ModelFailed
from horngate_server.model import Array, Feed
from horngate_server.runtime import devices
from horngate_server.runtime.capi import Deallocator, Output, check, library
from horngate_server.signature import FREE, Signature, TensorSpec

log = logging.getLogger(__name__)

SIGNATURE = "serving_default"
TAG = b"serve"
KEPT_FEED_BYTES = 4 << 20  # larger batches are allocated when they come: keeping every size would hold gigabytes
KEPT_FEEDS = 64


def load(
    path: Path, *, device: str = "auto", threads: int = 0, tags: Sequence[str] = (), signature: str = ""
) -> "SavedModel":
    """Load a SavedModel; it must have the signature ``serving_default``, and serves the others too that it can.

    Args:
        path: the version's folder, which holds ``saved_model.pb``.
        device: "auto", "cpu" or "gpu".
        threads: how many threads one operation may use; 0 leaves it to TensorFlow (one per core).

    Raises:
        ModelError: it is not a SavedModel that can be served, with the reason.
        DeviceUnavailable: ``device`` is "gpu" and TensorFlow can use none.
    """
    with native_log.captured() as complaints:
        return _load(path, device, threads, complaints)


class SavedModel:
    """A session and its signatures: the `Model` that serves. Made by `load`."""

    signature: Signature
    signatures: Mapping[str, Signature]
    device: devices.Device

    def __init__(self, session: int, graph: int) -> None:
        self._tf = library()
        self._session: int | None = session
        self._graph = graph
        self._status = self._tf.TF_NewStatus()
        self._ends: dict[str, _Ends] = {}
        self._feeds: OrderedDict[tuple[str, tuple[tuple[int, ...], ...]], _Feed] = OrderedDict()

    def bind(self, path: Path, definition: MetaGraphDef, device: str, complaints: Callable[[], list[str]]) -> None:
        """Read the signatures and the devices; find the graph's ends."""
        self.device = devices.choose(self._devices(), device, complaints())
        if SIGNATURE not in definition.signature_def:
            found = ", ".join(sorted(definition.signature_def)) or "none"
            raise ModelError(f"{path} has no signature {SIGNATURE}; it has: {found}")
        signatures = {}
        for name, each in sorted(definition.signature_def.items(), key=lambda item: item[0] != SIGNATURE):
            if name.startswith("__"):  # TensorFlow's own
                continue
            try:
                signature = _signature(path, name, each)
                self._ends[name] = self._find(signature)
            except ModelError as error:
                if name == SIGNATURE:
                    raise
                log.info("not served: %s", error)
            else:
                signatures[name] = signature
        self.signature, self.signatures = signatures[SIGNATURE], signatures

    def feed(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> Feed:
        """Return memory for a batch; small ones are kept and used again, at any number of rows up to a power of two."""
        rows = shapes[0][0]
        capacity = 1 << (rows - 1).bit_length()
        key = (signature.name, tuple((capacity, *shape[1:]) for shape in shapes))
        feed = self._feeds.get(key)
        if feed is not None:
            self._feeds.move_to_end(key)
        else:
            feed = _Feed(self._tf, signature, key[1])
            if feed.nbytes <= KEPT_FEED_BYTES:
                self._feeds[key] = feed
                feed.kept = True
                if len(self._feeds) > KEPT_FEEDS:
                    self._feeds.popitem(last=False)[1].free()
        feed.cut(rows)
        return feed

    def run(self, feed: Feed) -> Sequence[Array]:
        """Compute one batch (`Model.run`)."""
        assert isinstance(feed, _Feed)
        tf = self._tf
        inputs, outputs = self._ends[feed.signature.name]
        results = (c_void_p * len(outputs))()
        try:
            tf.TF_SessionRun(
                self._session, None,
                inputs, feed.tensors, len(inputs),
                outputs, results, len(outputs),
                None, 0, None, self._status,
            )  # fmt: skip
            check(self._status, ModelFailed, "the model failed on this batch")
            return [_copy(tf, tensor, spec) for tensor, spec in zip(results, feed.signature.outputs, strict=True)]
        finally:
            for tensor in results:
                if tensor:
                    tf.TF_DeleteTensor(tensor)
            if not feed.kept:
                feed.free()

    def close(self) -> None:
        """Close the session and free every handle. Does nothing the second time."""
        if not self._session:
            return
        for feed in self._feeds.values():
            feed.free()
        self._feeds.clear()
        self._tf.TF_CloseSession(self._session, self._status)
        self._tf.TF_DeleteSession(self._session, self._status)
        self._tf.TF_DeleteGraph(self._graph)
        self._tf.TF_DeleteStatus(self._status)
        self._session = None

    def _devices(self) -> list[tuple[str, str]]:
        """List the session's devices as (name, kind)."""
        tf = self._tf
        devices = tf.TF_SessionListDevices(self._session, self._status)
        check(self._status, ModelError, "TensorFlow cannot list its devices")
        try:
            return [
                tuple(
                    get(devices, index, self._status).decode() for get in (tf.TF_DeviceListName, tf.TF_DeviceListType)
                )
                for index in range(tf.TF_DeviceListCount(devices))
            ]
        finally:
            tf.TF_DeleteDeviceList(devices)

    def _find(self, signature: Signature) -> "_Ends":
        """Find a signature's inputs and outputs in the graph."""
        inputs, outputs = (
            self._resolve([spec.tensor for spec in side]) for side in (signature.inputs, signature.outputs)
        )
        return inputs, outputs

    def _resolve(self, names: Sequence[str]) -> ctypes.Array[Output]:
        """Resolve "node:index" names in the graph."""
        ends = (Output * len(names))()
        for end, name in zip(ends, names, strict=True):
            node, _, index = name.partition(":")
            end.oper = self._tf.TF_GraphOperationByName(self._graph, node.encode())
            end.index = int(index or 0)
            if not end.oper:
                raise ModelError(f"the signature names the graph node {node}, which does not exist")
        return ends


# --- private ------------------------------------------------------------------------------------------

_Ends = tuple[ctypes.Array[Output], ctypes.Array[Output]]
"""A signature's inputs and outputs in the graph."""


def _load(path: Path, device: str, threads: int, complaints: Callable[[], list[str]]) -> SavedModel:
    """Do what `load` says; ``complaints`` are what TensorFlow has logged meanwhile."""
    config = ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=-1,  # operations follow one another in our own thread: no hop to a pool and back
        allow_soft_placement=True,
    )
    config.gpu_options.allow_growth = True  # a model takes what it needs, not the whole card
    if device == "cpu":
        config.device_count["GPU"] = 0
    tf = library()
    status = tf.TF_NewStatus()
    options = tf.TF_NewSessionOptions()
    graph = tf.TF_NewGraph()
    meta = tf.TF_NewBuffer()
    try:
        serialized = config.SerializeToString()
        tf.TF_SetConfig(options, serialized, len(serialized), status)
        check(status, ModelError, "TensorFlow refuses the session's options")
        tags = (c_char_p * 1)(TAG)
        session = tf.TF_LoadSessionFromSavedModel(options, None, str(path).encode(), tags, 1, graph, meta, status)
        try:
            check(status, ModelError, f"{path} cannot be loaded")
        except ModelError:
            tf.TF_DeleteGraph(graph)
            raise
        buffer = meta.contents
        definition = MetaGraphDef.FromString(ctypes.string_at(buffer.data, buffer.length))
        model = SavedModel(session, graph)
    finally:
        tf.TF_DeleteBuffer(meta)
        tf.TF_DeleteSessionOptions(options)
        tf.TF_DeleteStatus(status)
    try:
        model.bind(path, definition, device, complaints)
    except BaseException:
        model.close()
        raise
    return model


class _Feed:
    """Aligned memory for the inputs of batches up to a size, seen as TensorFlow's tensors and as NumPy's arrays."""

    def __init__(self, tf: ctypes.CDLL, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> None:
        self._tf = tf
        self.signature = signature
        self._specs = specs = signature.inputs
        try:
            self._memory = [_aligned(spec, shape) for spec, shape in zip(specs, shapes, strict=True)]
        except MemoryError as error:
            raise ModelFailed(f"no memory for a batch: {error}") from error
        self._rows = 0
        self.kept = False
        self.nbytes = sum(memory.nbytes for memory in self._memory)
        self.tensors = (c_void_p * len(specs))()
        self.arrays: list[Array] = []

    def cut(self, rows: int) -> None:
        """Let the tensors and arrays have so many rows."""
        if rows == self._rows:
            return
        self.free()
        self._rows = rows
        self.arrays = [memory[:rows] for memory in self._memory]
        for index, (spec, array) in enumerate(zip(self._specs, self.arrays, strict=True)):
            axes = (c_int64 * array.ndim)(*array.shape)
            self.tensors[index] = self._tf.TF_NewTensor(
                spec.datatype.tensorflow, axes, array.ndim, array.ctypes.data, array.nbytes, _KEEP, None
            )

    def free(self) -> None:
        """Delete the tensors; the arrays must not be touched afterwards."""
        self._rows = 0
        self.arrays = []
        for index, tensor in enumerate(self.tensors):
            if tensor:
                self._tf.TF_DeleteTensor(tensor)
                self.tensors[index] = None


ALIGNMENT = 64
"""TensorFlow copies memory that is aligned to less (EIGEN_MAX_ALIGN_BYTES)."""
_KEEP = Deallocator(lambda *_: None)
"""The memory is NumPy's: TensorFlow has nothing to free."""


def _aligned(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    size = spec.size(shape)
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(spec.datatype.numpy).reshape(shape)


def _copy(tf: ctypes.CDLL, tensor: int, spec: TensorSpec) -> Array:
    """Copy an output out of TensorFlow's memory, once."""
    if tf.TF_TensorType(tensor) != spec.datatype.tensorflow:
        raise ModelFailed(f"output {spec} came back with TensorFlow type {tf.TF_TensorType(tensor)}")
    shape = tuple(tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor)))
    if not prod(shape):
        return np.empty(shape, spec.datatype.numpy)
    data = ctypes.string_at(tf.TF_TensorData(tensor), tf.TF_TensorByteSize(tensor))
    return np.frombuffer(data, spec.datatype.numpy).reshape(shape)


def _signature(path: Path, name: str, definition: SignatureDef) -> Signature:
    """Read a SignatureDef.

    Raises:
        ModelError: it has types or shapes that cannot be served.
    """
    signature = Signature(
        name,
        tuple(_spec(path, f"{name}: input", *item) for item in sorted(definition.inputs.items())),
        tuple(_spec(path, f"{name}: output", *item) for item in sorted(definition.outputs.items())),
        definition.method_name,
    )
    if not signature.inputs or not signature.outputs:
        raise ModelError(f"{path}: signature {name} has no inputs or no outputs: {signature}")
    return signature


def _spec(path: Path, role: str, name: str, info: TensorInfo) -> TensorSpec:
    """Read one input or output of a SignatureDef."""
    datatype = BY_TENSORFLOW.get(info.dtype)
    if datatype is None or info.WhichOneof("encoding") != "name":
        raise ModelError(f"{path}: {role} {name} has TensorFlow type {info.dtype}, which cannot be served")
    shape = tuple(dim.size for dim in info.tensor_shape.dim)
    if info.tensor_shape.unknown_rank or not shape or shape[0] != FREE:
        raise ModelError(
            f"{path}: {role} {name} has shape {list(shape)}; the first axis must be a batch of any length (-1)"
        )
    return TensorSpec(name, datatype, shape, info.name)

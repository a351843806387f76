"""A SavedModel in a TensorFlow session: the `model.Model` that serves."""

import ctypes
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from ctypes import c_char_p, c_int64, c_void_p
from itertools import count
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from horngate_protos.datatypes import BY_TENSORFLOW, tensorflow_name
from horngate_protos.tensorflow_pb2 import ConfigProto, MetaGraphDef, SignatureDef, TensorInfo
from horngate_server.core.device import Device
from horngate_server.core.errors import InputRefused, ModelError, ModelFailed, OutOfMemory, RequestError
from horngate_server.core.model import Array, Feed
from horngate_server.core.signature import Signature, TensorSpec, default_name
from horngate_server.runtimes import native_log
from horngate_server.runtimes.tensorflow import devices, runtime_log, strings
from horngate_server.runtimes.tensorflow.capi import Deallocator, Output, check, library
from horngate_server.runtimes.tensorflow.graph import annotated
from horngate_server.runtimes.tensorflow.tags import meta_graph_tags

log = logging.getLogger(__name__)

TAG = "serve"
KEPT_FEED_BYTES = 4 << 20  # larger batches are allocated when they come: keeping every size would hold gigabytes
KEPT_FEEDS = 64
LARGE_BYTES = 1 << 20
"""Larger outputs are copied into arrays of their own, not into bytes objects."""
MESSAGE_CHARACTERS = 800
"""A model's words are cut to these."""


def load(
    path: Path, *, device: str = "auto", threads: int = 0, tags: Sequence[str] = (), signature: str = ""
) -> "SavedModel":
    """Load a SavedModel, with all of its signatures that can be served.

    Args:
        path: the version's folder, which holds ``saved_model.pb``.
        device: "auto", "cpu" or "gpu".
        threads: how many threads one operation may use; 0 leaves it to TensorFlow (one per core).
        tags: of the MetaGraph that is meant; "serve", or those of the only one that there is, where there are none.
        signature: the default one's name; ``serving_default``, the only one, ``predict``, or the first, if empty.

    Raises:
        ModelError: it is not a SavedModel that can be served, with the reason.
        DeviceUnavailable: ``device`` is "gpu" and TensorFlow can use none.
    """
    with native_log.captured() as complaints:
        library()
        with runtime_log.heard():
            model = _opened(path, device, threads, meta_graph_tags(path, tags))
            try:
                model.bind(path, device, signature, complaints)
            except BaseException:
                model.close()
                raise
            return model


def load_library() -> None:
    """Load TensorFlow's library, without what it says of the processor then.

    Raises:
        ModelError: TensorFlow is not installed.
    """
    with native_log.captured():
        library()


def load_op_library(path: Path) -> None:
    """Load a library of operations, which models may then use; the same one twice is loaded once.

    Raises:
        ModelError: TensorFlow refuses it, in its words.
    """
    tf = library()
    status = tf.TF_NewStatus()
    try:
        tf.TF_LoadLibrary(str(path.absolute()).encode(), status)
        check(status, ModelError, f"--op-library {path} cannot be loaded")
    finally:
        tf.TF_DeleteStatus(status)


class SavedModel:
    """A session and its signatures: the `Model` that serves. Made by `load`."""

    signature: Signature
    signatures: Mapping[str, Signature]
    device: Device

    def __init__(self, session: int, graph: int, definition: MetaGraphDef) -> None:
        self._tf = library()
        self._session: int | None = session
        self._graph = graph
        self._definition: MetaGraphDef | None = definition
        self._status = self._tf.TF_NewStatus()
        self._ends: dict[str, _Ends] = {}
        self._keeping: frozenset[str] = frozenset()
        self._feeds: OrderedDict[tuple[str, tuple[tuple[int, ...], ...]], _Feed] = OrderedDict()
        self._borrowed = False

    def bind(self, path: Path, device: str, default: str, complaints: Callable[[], list[str]]) -> None:
        """Read the signatures and the devices; find the graph's ends. The definition is let go then."""
        definition, self._definition = self._definition, None
        assert definition is not None
        self.device = devices.choose(self._devices(), device, complaints())
        known = {name: each for name, each in definition.signature_def.items() if not name.startswith("__")}
        default = default_name(known, default)
        signatures: list[Signature] = []
        for name, each in sorted(known.items(), key=lambda item: (item[0] != default, item[0])):
            try:
                signature = _signature(path, name, each)
                self._ends[name] = self._find(signature)
            except ModelError as error:
                if name == default:
                    raise
                log.info("not served: %s", error)
            else:
                signatures.append(signature)
        self.signatures = {each.name: each for each in annotated(signatures, definition)}
        self.signature = self.signatures[default]
        self._keeping = frozenset(
            each.name for each in self.signatures.values()
            if each.inputs and not each.writes and all(map(_keepable, each.inputs))
        )  # fmt: skip

    def second(self) -> "SavedModel":
        """Return another model of this session: each may compute while the other does. It is closed before this one."""
        assert self._session is not None
        other = SavedModel(self._session, self._graph, MetaGraphDef())
        other.signature, other.signatures, other.device = self.signature, self.signatures, self.device
        other._ends, other._keeping, other._borrowed = self._ends, self._keeping, True
        return other

    def feed(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> Feed:
        """Return memory for a batch; small ones of rows are kept and used again, up to a power of two of these."""
        if signature.name not in self._keeping:
            return _Feed(self._tf, signature, shapes, kept=False)
        rows = shapes[0][0]
        if len(shapes) > 1 and any(shape[0] != rows for shape in shapes):
            return _Feed(self._tf, signature, shapes, kept=False)
        capacity = 1 << (rows - 1).bit_length() if rows else 0
        key = (signature.name, tuple((capacity, *shape[1:]) for shape in shapes))
        feed = self._feeds.get(key)
        if feed is not None:
            self._feeds.move_to_end(key)
        elif sum(map(_bytes, signature.inputs, key[1])) > KEPT_FEED_BYTES:
            return _Feed(self._tf, signature, shapes, kept=False)
        else:
            feed = self._feeds[key] = _Feed(self._tf, signature, key[1], kept=True)
            if len(self._feeds) > KEPT_FEEDS:
                self._feeds.popitem(last=False)[1].free()
        feed.cut(rows)
        return feed

    def run(self, feed: Feed) -> Sequence[Array]:
        """Compute one batch (`Model.run`)."""
        assert isinstance(feed, _Feed)
        tf = self._tf
        inputs, outputs, through = self._ends[feed.signature.name]
        results = (c_void_p * len(outputs))()
        try:
            if not feed.kept:
                feed.hand_over()
            tf.TF_SessionRun(
                self._session, None,
                inputs, feed.tensors, len(inputs),
                outputs, results, len(outputs),
                None, 0, None, self._status,
            )  # fmt: skip
            if code := tf.TF_GetCode(self._status):
                raise _failure(code, tf.TF_Message(self._status).decode(errors="replace"))
            specs = feed.signature.outputs
            if through:
                return self._with_inputs(feed, results, through)
            return [_copy(tf, tensor, spec) for tensor, spec in zip(results, specs, strict=True)]
        except MemoryError as error:
            raise OutOfMemory(f"no memory for the answers of this batch: {error}") from error
        finally:
            for tensor in results:
                if tensor:
                    tf.TF_DeleteTensor(tensor)
            if not feed.kept:
                feed.free()

    def _with_inputs(self, feed: "_Feed", results: Iterable[int], through: Mapping[int, int]) -> Sequence[Array]:
        """Return the outputs where some are inputs as they came."""
        fetched = iter(results)
        return [
            feed.arrays[through[place]].copy() if place in through else _copy(self._tf, next(fetched), spec)
            for place, spec in enumerate(feed.signature.outputs)
        ]

    def close(self) -> None:
        """Close the session and free every handle. Does nothing the second time."""
        if not self._session:
            return
        for feed in self._feeds.values():
            feed.free()
        self._feeds.clear()
        if not self._borrowed:
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
        inputs = [spec.tensor for spec in signature.inputs]
        through = {
            place: inputs.index(spec.tensor) for place, spec in enumerate(signature.outputs) if spec.tensor in inputs
        }
        outputs = [spec.tensor for spec in signature.outputs if spec.tensor not in inputs]
        return _Ends(self._resolve(inputs), self._resolve(outputs), through)

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


class _Ends(NamedTuple):
    """A signature's inputs and outputs in the graph, and by place the outputs that are an input as it came.

    These TensorFlow does not fetch ("both fed and fetched").
    """

    inputs: ctypes.Array[Output]
    outputs: ctypes.Array[Output]
    through: Mapping[int, int]


def _opened(path: Path, device: str, threads: int, tags: Sequence[str]) -> SavedModel:
    """Open a session, as `load` says, that is not bound yet."""
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
        given = (c_char_p * len(tags))(*[tag.encode() for tag in tags])
        session = tf.TF_LoadSessionFromSavedModel(
            options, None, os.fsencode(path), given, len(tags), graph, meta, status
        )
        try:
            check(status, ModelError, f"{path} cannot be loaded")
        except ModelError:
            tf.TF_DeleteGraph(graph)
            raise
        buffer = meta.contents
        definition = MetaGraphDef.FromString(ctypes.string_at(buffer.data, buffer.length))
        return SavedModel(session, graph, definition)
    finally:
        tf.TF_DeleteBuffer(meta)
        tf.TF_DeleteSessionOptions(options)
        tf.TF_DeleteStatus(status)


class _Feed:
    """Aligned memory for the inputs of a batch, seen as NumPy's arrays and, when it runs, as TensorFlow's tensors.

    One that is kept has memory for batches up to a size, and its tensors are used again. The memory of others is
    TensorFlow's once they run: a graph that remembers what it is given may hold it for as long as it likes.
    """

    def __init__(self, tf: ctypes.CDLL, signature: Signature, shapes: Sequence[tuple[int, ...]], *, kept: bool) -> None:
        self._tf = tf
        self.signature = signature
        self._specs = signature.inputs
        self.kept = kept
        self._rows = -1
        self.tensors = (c_void_p * len(self._specs))()
        try:
            self._memory = [_memory(spec, shape) for spec, shape in zip(self._specs, shapes, strict=True)]
        except (MemoryError, ValueError) as error:  # NumPy's words for more than there can be
            raise OutOfMemory(f"no memory for a batch: {error}") from error
        self.arrays: list[Array] = [] if kept else list(self._memory)

    def cut(self, rows: int) -> None:
        """Let the tensors and arrays of a kept one have so many rows."""
        if rows == self._rows:
            return
        self.free()
        self._rows = rows
        self.arrays = [memory[:rows] for memory in self._memory]
        for index, (spec, array) in enumerate(zip(self._specs, self.arrays, strict=True)):
            self.tensors[index] = _tensor(self._tf, spec, array.shape, array)

    def hand_over(self) -> None:
        """Make tensors of what the arrays hold now; TensorFlow says when it needs their memory no more."""
        for index, (spec, array) in enumerate(zip(self._specs, self.arrays, strict=True)):
            memory = array
            large: tuple[int, ...] = ()
            if array.dtype.hasobject:
                memory = _aligned(array.size * strings.ITEM_BYTES)
                memory[:] = 0
                large = tuple(strings.write(array.reshape(-1).tolist(), memory))
            key = _HELD.hold(memory, large)
            self.tensors[index] = _tensor(self._tf, spec, array.shape, memory, key)

    def free(self) -> None:
        """Delete the tensors; the arrays must not be touched afterwards."""
        self._rows = -1
        self.arrays = []
        for index, tensor in enumerate(self.tensors):
            if tensor:
                self._tf.TF_DeleteTensor(tensor)
                self.tensors[index] = None


class _Held:
    """Memory that TensorFlow uses until it calls back, on whatever thread."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Array, tuple[int, ...]]] = {}
        self._keys = count(1)

    def hold(self, memory: Array, large: tuple[int, ...]) -> int:
        """Keep memory, and the places of strings in it that have their own; return what it is let go by."""
        key = next(self._keys)
        self._held[key] = memory, large
        return key

    def let_go(self, key: int) -> None:
        """Free it."""
        memory, large = self._held.pop(key)
        strings.free(memory.ctypes.data, large)


ALIGNMENT = 64
"""TensorFlow copies memory that is aligned to less (EIGEN_MAX_ALIGN_BYTES)."""
_HELD = _Held()
_LET_GO = Deallocator(lambda _data, _size, key: _HELD.let_go(key))
_KEEP = Deallocator(lambda *_: None)
"""The memory is NumPy's: TensorFlow has nothing to free."""


def _keepable(spec: TensorSpec) -> bool:
    return spec.in_rows and not spec.datatype.numpy.hasobject


def _bytes(spec: TensorSpec, shape: tuple[int, ...]) -> int:
    return spec.size(shape)


def _tensor(tf: ctypes.CDLL, spec: TensorSpec, shape: tuple[int, ...], memory: Array, key: int = 0) -> int:
    """Return a tensor in this memory; TensorFlow says when it needs that no more, where there is a key to let it go."""
    axes = (c_int64 * len(shape))(*shape)
    made: int = tf.TF_NewTensor(
        spec.datatype.tensorflow, axes, len(shape), memory.ctypes.data, memory.nbytes, _LET_GO if key else _KEEP, key
    )
    return made


def _memory(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Return an array for an input: aligned memory for numbers, objects for strings."""
    if spec.datatype.numpy.hasobject:
        return np.empty(shape, object)
    return _aligned(spec.size(shape)).view(spec.datatype.numpy).reshape(shape)


def _aligned(size: int) -> Array:
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def _copy(tf: ctypes.CDLL, tensor: int, spec: TensorSpec) -> Array:
    """Copy an output out of TensorFlow's memory, once."""
    datatype = spec.datatype
    if tf.TF_TensorType(tensor) != datatype.tensorflow:
        raise ModelFailed(
            f"output {spec.name!r} came back as {tensorflow_name(tf.TF_TensorType(tensor))}; the signature says "
            f"{tensorflow_name(datatype.tensorflow)}"
        )
    shape = tuple(tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor)))
    if not prod(shape):
        return np.empty(shape, datatype.numpy)
    address = tf.TF_TensorData(tensor)
    if datatype.numpy.hasobject:
        array = np.empty(prod(shape), object)
        array[:] = strings.read(address, prod(shape))
        return array.reshape(shape)
    size = tf.TF_TensorByteSize(tensor)
    if size > LARGE_BYTES:
        memory = np.frombuffer((ctypes.c_uint8 * size).from_address(address), datatype.numpy)
        return memory.copy().reshape(shape)
    return np.frombuffer(ctypes.string_at(address, size), datatype.numpy).reshape(shape)


_REFERENCE = 100
"""By so much the number of a reference's type is larger (``tensorflow/core/framework/types.proto``)."""
_INVALID_ARGUMENT, _FAILED_PRECONDITION, _RESOURCE_EXHAUSTED, _OUT_OF_RANGE = 3, 9, 8, 11  # absl's codes
_NODE = re.compile(r"\s*\[\[\{\{.*", re.DOTALL)
_LOST_VARIABLE = re.compile(
    r"Could not find variable|Error while reading resource variable|Resource \S+ does not exist"
)


def _failure(code: int, message: str) -> RequestError:
    """Return what a run failed with, in the model's words, without where in the graph that was."""
    words = _NODE.sub("", message).strip() or message.strip()
    if len(words) > MESSAGE_CHARACTERS:
        words = words[: MESSAGE_CHARACTERS - 3] + "..."
    if code in {_INVALID_ARGUMENT, _OUT_OF_RANGE}:
        return InputRefused(f"the model refuses this input: {words}")
    if code == _RESOURCE_EXHAUSTED:
        return OutOfMemory(f"the model found no memory: {words}")
    if code == _FAILED_PRECONDITION and _LOST_VARIABLE.search(words):
        words += (
            ". It was saved in a way that a session cannot find its variables: save a Keras model with "
            "model.export(...) instead of tf.saved_model.save"
        )
    return ModelFailed(f"the model failed on this batch: {words}")


def _signature(path: Path, name: str, definition: SignatureDef) -> Signature:
    """Read a SignatureDef.

    Raises:
        ModelError: it has types that cannot be served.
    """
    signature = Signature(
        name,
        tuple(_spec(path, f"{name}: input", *item) for item in sorted(definition.inputs.items())),
        tuple(_spec(path, f"{name}: output", *item) for item in sorted(definition.outputs.items())),
        definition.method_name,
    )
    if not signature.outputs:
        raise ModelError(f"{path}: signature {name} has no outputs: {signature}")
    return signature


def _spec(path: Path, role: str, name: str, info: TensorInfo) -> TensorSpec:
    """Read one input or output of a SignatureDef."""
    datatype = BY_TENSORFLOW.get(info.dtype % _REFERENCE)  # a reference to a variable is read as what it holds
    if datatype is None:
        raise ModelError(f"{path}: {role} {name} has the type {tensorflow_name(info.dtype)}, which cannot be served")
    if info.WhichOneof("encoding") != "name":
        raise ModelError(f"{path}: {role} {name} is no tensor but {info.WhichOneof('encoding') or 'nothing'}")
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name, datatype, shape, info.name)

"""A .tflite file in LiteRT: the `model.Model` that serves."""

import logging
import mmap
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from ctypes import byref, c_int, c_void_p
from math import prod
from pathlib import Path

import numpy as np

from horngate_protos.control_groups import cores
from horngate_server.core.device import Device
from horngate_server.core.errors import DeviceUnavailable, InputRefused, ModelError, ModelFailed, OutOfMemory
from horngate_server.core.model import Array, Feed
from horngate_server.core.signature import FREE, Signature, TensorSpec, default_name
from horngate_server.runtimes import native_log
from horngate_server.runtimes.litert import capi, file
from horngate_server.runtimes.litert.capi import Layout, TensorType, library

log = logging.getLogger(__name__)

MODEL = "model.tflite"
KEPT_FEED_BYTES = 4 << 20  # larger batches are allocated when they come: keeping every size would hold gigabytes
KEPT_FEEDS = 64
MESSAGE_CHARACTERS = 800
"""A model's words are cut to these."""


def load(path: Path, *, device: str = "auto", threads: int = 0, signature: str = "") -> "LiteRTModel":
    """Load a .tflite file, with all of its signatures that can be served.

    Args:
        path: the version's folder, which holds ``model.tflite``; or a ``.tflite`` file.
        device: "auto" or "cpu".
        threads: how many threads one operation may use; 0 is one per core, and at most four.
        signature: the default one's name; ``serving_default``, the only one, ``predict``, or the first, if empty.

    Raises:
        ModelError: it is not a model that can be served, with the reason.
        DeviceUnavailable: ``device`` is "gpu".
    """
    if device == "gpu":
        raise DeviceUnavailable("--device gpu, but LiteRT computes on the CPU here: use the TensorFlow engine")
    where = path if path.is_file() else path / MODEL
    memory = _mapped(where)
    try:
        contents = file.read(memory.data)
        default = _default(contents, signature)
        with native_log.captured():  # it says on stderr that it found XNNPACK
            model = _proved(memory, contents, default, threads)
    except ModelError as error:
        raise type(error)(f"{where} cannot be loaded: {error}") from error
    for name, why in model.refused.items():
        log.info("not served: %s: %s: %s", where, name, why)
    return model


class LiteRTModel:
    """A compiled model and its signatures: the `Model` that serves. Made by `load`.

    Attributes:
        engine: its name.
        signature: what it takes and returns, unless a request asks for another one.
        signatures: all that are served, the default one first.
        refused: why others are not, by name.
        device: where it computes, and with whose kernels.
    """

    engine = "litert"
    signature: Signature
    signatures: Mapping[str, Signature]
    device: Device
    refused: Mapping[str, str]

    def __init__(self, memory: Array, contents: file.Contents, default: str, threads: int, kernels: str) -> None:
        self._lite = library()
        self._memory = memory
        self._model, self._compiled = _compiled(memory, threads, kernels)
        self._entries = contents.entries
        self.refused = contents.refused
        ordered = sorted(contents.entries, key=lambda name: (name != default, name))
        self.signatures = {name: contents.entries[name].signature for name in ordered}
        self.signature = self.signatures[default]
        self.device = Device("CPU", "CPU:0", f"LiteRT computes on the CPU, with {_KERNELS[kernels]}")
        self._shapes: dict[str, Sequence[tuple[int, ...]]] = {}
        self._feeds: OrderedDict[tuple[str, tuple[tuple[int, ...], ...]], _Feed] = OrderedDict()

    def feed(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> Feed:
        """Return memory for a batch; small ones of rows are kept and used again, up to a power of two of these."""
        entry = self._entries[signature.name]
        rows = _rows(signature, shapes)
        if rows is None or not all(spec.in_rows for spec in signature.inputs):
            return _Feed(entry, shapes, rows or 0, kept=False)
        capacity = 1 << (rows - 1).bit_length() if rows else 0
        key = (signature.name, tuple((capacity, *shape[1:]) for shape in shapes))
        feed = self._feeds.get(key)
        if feed is not None:
            self._feeds.move_to_end(key)
        elif sum(spec.size(shape) for spec, shape in zip(signature.inputs, key[1], strict=True)) > KEPT_FEED_BYTES:
            return _Feed(entry, shapes, rows, kept=False)
        else:
            feed = self._feeds[key] = _Feed(entry, key[1], capacity, kept=True)
            if len(self._feeds) > KEPT_FEEDS:
                self._feeds.popitem(last=False)[1].free()
        feed.cut(rows)
        return feed

    def run(self, feed: Feed) -> Sequence[Array]:
        """Compute one batch (`Model.run`)."""
        assert isinstance(feed, _Feed)
        return self._run(feed)

    def _run(self, feed: "_Feed") -> Sequence[Array]:
        entry = feed.entry
        try:
            if not all(map(prod, feed.shapes)):
                return _nothing(feed)
            self._resize(entry, feed.shapes)
            status = self._lite.LiteRtRunCompiledModel(
                self._compiled, entry.index, len(feed.inputs), feed.inputs, len(feed.outputs), feed.outputs
            )
            if status != capi.OK:
                raise self._failure(entry, status)
            self._check_shapes(feed)
            return feed.results()
        except MemoryError as error:
            raise OutOfMemory(f"no memory for the answers of this batch: {error}") from error
        finally:
            if not feed.kept:
                feed.free()

    def close(self) -> None:
        """Free every handle. Does nothing the second time."""
        if not self._compiled.value:
            return
        for feed in self._feeds.values():
            feed.free()
        self._feeds.clear()
        self._lite.LiteRtDestroyCompiledModel(self._compiled)
        self._lite.LiteRtDestroyModel(self._model)
        self._compiled = c_void_p()
        del self._memory

    def trial(self, name: str) -> str:
        """Compute zeros, in two numbers of rows one after the other; return why it cannot be served, or ""."""
        entry = self._entries[name]
        why = ""
        for length in _FREE_AXES:
            try:
                for rows in (2, 3):
                    shapes = [_filled(spec, rows, length) for spec in entry.signature.inputs]
                    self._run(_Feed(entry, shapes, rows, kept=False, room=_ROOM))
            except InputRefused as error:
                why = why or f"zeros cannot be computed: {str(error).removeprefix(_REFUSES)}"
            except ModelFailed as error:
                return str(error)
            else:
                return ""
            if not any(spec.is_open for spec in entry.signature.inputs):
                break
        return why

    def _resize(self, entry: file.Entry, shapes: Sequence[tuple[int, ...]]) -> None:
        """Tell LiteRT the shapes of what comes next, where they are not those of what came last."""
        if self._shapes.get(entry.signature.name) == shapes:
            return
        self._shapes.pop(entry.signature.name, None)
        for slot, place in enumerate(entry.inputs):
            spec, shape = entry.signature.inputs[place], shapes[place]
            if spec.shape is None or FREE not in spec.shape:
                continue
            axes = (c_int * len(shape))(*shape)
            status = self._lite.LiteRtCompiledModelResizeInputTensor(self._compiled, entry.index, slot, axes, len(axes))
            if status != capi.OK:
                raise self._failure(entry, status)
        self._shapes[entry.signature.name] = shapes

    def _check_shapes(self, feed: "_Feed") -> None:
        """Look whether the outputs had the shapes that memory was given for."""
        layouts = (Layout * len(feed.outputs))()
        self._lite.LiteRtGetCompiledModelOutputTensorLayouts(
            self._compiled, feed.entry.index, len(layouts), layouts, False
        )
        for place, layout in zip(feed.entry.outputs, layouts, strict=True):
            if place not in feed.entry.through and layout.shape != feed.result_shapes[place]:
                name = feed.entry.signature.outputs[feed.entry.results[place][0]].name
                raise ModelFailed(
                    f"output {name!r} came back as {list(layout.shape)}; for this batch the signature says "
                    f"{list(feed.result_shapes[place])}"
                )

    def _failure(self, entry: file.Entry, status: int) -> InputRefused | ModelFailed:
        """Return what a run failed with, in LiteRT's words. The shapes are told anew before the next one."""
        self._shapes.pop(entry.signature.name, None)
        words = capi.said(self._compiled) or capi.reason(status)
        if len(words) > MESSAGE_CHARACTERS:
            words = words[: MESSAGE_CHARACTERS - 3] + "..."
        only_rows = not any(spec.is_open for spec in entry.signature.inputs)
        if status == _NO_MEMORY or (only_rows and _TOO_LARGE.search(words)):
            return OutOfMemory(f"the model found no memory: {words}")
        return InputRefused(_REFUSES + words)


# --- private ------------------------------------------------------------------------------------------

ALIGNMENT = 64
"""What LiteRT demands of memory that it is given (LITERT_HOST_MEMORY_BUFFER_ALIGNMENT)."""
_PADDING = 128
"""XNNPACK reads, and does not use, a few bytes beyond an input."""
_REFUSES = "the model refuses this input: "
_NO_MEMORY = 2
_TOO_LARGE = re.compile(r"failed to (reshape|prepare)|Failed to allocate|\(RESHAPE\) failed to invoke")
"""What LiteRT says when there is no memory for so many rows; of other free axes, also when it takes no such length."""
MOST_THREADS = 4
"""For 0: XNNPACK cuts the smallest operation into as many pieces, and waits for all of them."""


def _mapped(path: Path) -> Array:
    """Return a file's bytes, which stay on disk until they are used."""
    try:
        with path.open("rb") as opened:
            return np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ModelError(f"{path} cannot be read: {error}") from error


_KERNELS = {"xnnpack": "XNNPACK", "builtin": "its own kernels: XNNPACK cannot run this model"}
_FREE_AXES = (64, 16, 4, 256)
"""Lengths that are tried for free axes which are no rows: sequences and images, none too short, none too long."""
_ROOM = 8
"""So many times the memory that a trial should need: a model that is not what it says writes there, if anywhere."""


def _proved(memory: Array, contents: file.Contents, default: str, threads: int) -> LiteRTModel:
    """Return the model with the first kernels that run it, and only with signatures that are what they say.

    Raises:
        ModelError: the default one fails, or answers in other shapes than it says.
    """
    failed: dict[str, dict[str, str]] = {}
    for kernels in _KERNELS:
        model = LiteRTModel(memory, contents, default, threads, kernels)
        failed[kernels] = {name: why for name in contents.entries if (why := model.trial(name))}
        remembers = any(signature.writes for signature in model.signatures.values())
        if not failed[kernels] and not remembers:
            return model
        model.close()
        if not failed[kernels]:
            break
    best = min(failed, key=lambda kernels: (default in failed[kernels], len(failed[kernels])))
    if default in failed[best]:
        raise ModelError(f"signature {default}: {failed[best][default]}")
    proved = {name: entry for name, entry in contents.entries.items() if name not in failed[best]}
    return LiteRTModel(memory, file.Contents(proved, {**contents.refused, **failed[best]}), default, threads, best)


def _compiled(memory: Array, threads: int, kernels: str) -> tuple[c_void_p, c_void_p]:
    """Let LiteRT open the file and compile its graphs."""
    lite = library()
    environment = capi.environment()
    model, compiled = c_void_p(), c_void_p()
    threads = threads or min(cores(), MOST_THREADS)
    options = capi.options({
        b"xnnpack": f'num_threads = {threads}\nkernel_mode = "{kernels}"\n'.encode(),
        b"runtime_options_string": b"error_reporter_mode = 2\n",
    })  # fmt: skip
    try:
        status = lite.LiteRtCreateModelFromBuffer(environment, memory.ctypes.data, memory.nbytes, byref(model))
        capi.check(status, "LiteRT refuses the file")
        status = lite.LiteRtCreateCompiledModel(environment, model, options, byref(compiled))
        capi.check(status, "LiteRT refuses the model")
    except BaseException:
        lite.LiteRtDestroyModel(model)
        raise
    finally:
        lite.LiteRtDestroyOptions(options)
    return model, compiled


def _default(contents: file.Contents, asked: str) -> str:
    """Return the name of the signature that callers get who name none.

    Raises:
        ModelError: there is none, not the one that was asked for, or it cannot be served.
    """
    name = default_name([*contents.entries, *contents.refused], asked)
    if name in contents.refused:
        raise ModelError(f"signature {name}: {contents.refused[name]}")
    return name


def _rows(signature: Signature, shapes: Sequence[tuple[int, ...]]) -> int | None:
    """Return how many rows a batch has; None where no input has rows.

    Raises:
        InputRefused: the inputs differ in it: nobody can say then how many the outputs have.
    """
    found = {shape[0] for spec, shape in zip(signature.inputs, shapes, strict=True) if spec.in_rows}
    if len(found) > 1:
        raise InputRefused(f"the inputs have different numbers of rows: {sorted(found)}")
    return found.pop() if found else None


class _Feed:
    """Aligned memory for the inputs and outputs of a batch, seen as NumPy's arrays and as LiteRT's tensors.

    One that is kept has memory for batches up to a size, and answers are copied out of it. The memory of others is
    used once.
    """

    def __init__(
        self, entry: file.Entry, shapes: Sequence[tuple[int, ...]], rows: int, *, kept: bool, room: int = 1
    ) -> None:
        self._lite = library()
        self.entry = entry
        self.kept = kept
        self._room = room
        self.inputs = (c_void_p * len(entry.inputs))()
        self.outputs = (c_void_p * len(entry.outputs))()
        self._tensors: list[c_void_p] = []
        self._rows = -1
        self._result_specs = [entry.signature.outputs[places[0]] for places in entry.results]
        specs = entry.signature.inputs
        try:
            self._memory = [_memory(spec, shape) for spec, shape in zip(specs, shapes, strict=True)]
            self._result_memory = [
                self._memory[entry.through[place]]
                if place in entry.through
                else _memory(spec, _shape(spec, rows), room)
                for place, spec in enumerate(self._result_specs)
            ]
        except (MemoryError, ValueError) as error:  # NumPy's words for more than there can be
            raise OutOfMemory(f"no memory for a batch: {error}") from error
        self.arrays: list[Array] = []
        self._results: list[Array] = []
        if not kept:
            self.cut(rows)

    @property
    def signature(self) -> Signature:
        """Whose inputs these are."""
        return self.entry.signature

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Those of the inputs."""
        return [array.shape for array in self.arrays]

    @property
    def result_shapes(self) -> list[tuple[int, ...]]:
        """Those that the results must have."""
        return [array.shape for array in self._results]

    def cut(self, rows: int) -> None:
        """Let the tensors and arrays have so many rows."""
        if rows == self._rows:
            return
        self.free()
        self._rows = rows
        entry = self.entry
        specs = entry.signature.inputs
        self.arrays = [_cut(spec, memory, rows) for spec, memory in zip(specs, self._memory, strict=True)]
        self._results = [
            _cut(spec, memory, rows) for spec, memory in zip(self._result_specs, self._result_memory, strict=True)
        ]
        given = [self._tensor(spec, array) for spec, array in zip(specs, self.arrays, strict=True)]
        results = [
            given[entry.through[place]] if place in entry.through else self._tensor(spec, array, self._room)
            for place, (spec, array) in enumerate(zip(self._result_specs, self._results, strict=True))
        ]
        self.inputs[:] = [given[place] for place in entry.inputs]
        self.outputs[:] = [results[place] for place in entry.outputs]

    def results(self) -> list[Array]:
        """Return what was computed, by the signature's outputs."""
        found: list[Array] = [np.empty(0)] * len(self.entry.signature.outputs)
        for place, (array, names) in enumerate(zip(self._results, self.entry.results, strict=True)):
            for name in names:
                found[name] = array.copy() if self.kept or place in self.entry.through else array
        return found

    def free(self) -> None:
        """Delete the tensors; the arrays must not be touched afterwards."""
        self._rows = -1
        self.arrays = []
        self._results = []
        for tensor in self._tensors:
            self._lite.LiteRtDestroyTensorBuffer(tensor)
        self._tensors.clear()

    def _tensor(self, spec: TensorSpec, array: Array, room: int = 1) -> int | None:
        """Return a tensor in this memory; None for one without elements, which LiteRT does not have."""
        if not array.nbytes:
            return None
        kind = TensorType(file.ELEMENTS[spec.datatype.name], Layout.of(array.shape))
        made = c_void_p()
        status = self._lite.LiteRtCreateTensorBufferFromHostMemory(
            byref(kind), array.ctypes.data, array.nbytes * room, None, byref(made)
        )
        if status != capi.OK:
            raise OutOfMemory(f"LiteRT takes no batch of this size: {capi.reason(status)}")
        self._tensors.append(made)
        return made.value


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    assert spec.shape is not None
    return (rows, *spec.row) if spec.in_rows else spec.shape


def _filled(spec: TensorSpec, rows: int, length: int) -> tuple[int, ...]:
    """Return a shape for it: its own, with lengths for the free axes."""
    return tuple(length if axis == FREE else axis for axis in _shape(spec, rows))


def _cut(spec: TensorSpec, memory: Array, rows: int) -> Array:
    return memory[:rows] if spec.in_rows else memory


def _nothing(feed: _Feed) -> list[Array]:
    """Return the answers of a batch without rows, which LiteRT does not compute."""
    if any(not prod(shape[1:]) for shape in feed.shapes):
        raise InputRefused(f"{_REFUSES}LiteRT computes nothing of an axis of length 0")
    return [np.zeros(_shape(spec, 0), spec.datatype.numpy) for spec in feed.entry.signature.outputs]


def _memory(spec: TensorSpec, shape: tuple[int, ...], room: int = 1) -> Array:
    """Return an array of zeros in aligned memory, with a little more behind it."""
    size = spec.size(shape)
    raw = np.zeros(size * room + ALIGNMENT + _PADDING, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(spec.datatype.numpy).reshape(shape)

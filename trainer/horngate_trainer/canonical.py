"""A SavedModel's graph, rewritten so that equal models are equal files and its signature has the names asked for.

TensorFlow numbers functions by all that a process did before, and orders them by the hash of those numbered names: a
training that was resumed wrote another file than one that was not. It also refuses inputs whose names are no Python
names, though a signature on disk may have any.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from horngate_trainer.model_files import GRAPH


def rewrite(folder: Path, names: Mapping[str, str]) -> None:
    """Rewrite the graph of a SavedModel that was just written.

    Args:
        folder: the SavedModel's.
        names: by a signature input's name as it was written, the one that it is to have.

    Raises:
        OSError: it cannot be read or written.
    """
    path = folder / GRAPH
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta in saved.meta_graphs:
        _number_functions(meta)
        _rename_inputs(meta, names)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # It holds a checksum of the file as it was, and a random number. Loaders do without it.
    (folder / "fingerprint.pb").unlink(missing_ok=True)


# --- private ---------------------------------------------------------------------------------------------------------

_COUNTER = re.compile(r"_\d+$")
_GRADIENT = "_gradient_op_type"
_UNUSED = re.compile(r"_\d+(?=___redundant_placeholder)")


def _number_functions(meta: Any) -> None:
    """Give functions numbers in the order in which the graph, and then the object graph, names them."""
    library = meta.graph_def.library
    functions = {function.signature.name: function for function in library.function}
    gradients = {each.registered_op_type: each.gradient_func for each in library.registered_gradients}
    ordered: dict[str, None] = {}
    waiting = [*_named(meta.graph_def.node, functions, gradients), *_objects_functions(meta.object_graph_def)]
    waiting += sorted(set(functions) - set(waiting), key=lambda name: (_COUNTER.sub("", name), name))
    waiting.reverse()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in ordered:
            ordered[name] = None
            waiting += reversed(list(_named(functions[name].node_def, functions, gradients)))
    new = {name: f"{_COUNTER.sub('', name)}_{number}" for number, name in enumerate(ordered)}
    # Operations with a gradient of their own name it by a text, which loaders replace.
    places = sorted(
        gradients, key=lambda kind: list(ordered).index(gradients[kind]) if gradients[kind] in ordered else 0
    )
    new |= {kind: f"CustomGradient-{number}" for number, kind in enumerate(places)}
    _rename(meta, [functions[name] for name in ordered], new)


def _rename(meta: Any, functions: Sequence[Any], new: Mapping[str, str]) -> None:
    """Rename functions wherever they are named, and put them into this order."""
    library = meta.graph_def.library
    _rename_nodes(meta.graph_def.node, new)
    for function in functions:
        function.signature.name = new[function.signature.name]
        _rename_nodes(function.node_def, new)
        _rename_attributes(function.attr, new)
        for attributes in function.arg_attr.values():
            _rename_attributes(attributes.attr, new)
        _rename_unused(function)
    copies = [type(function).FromString(function.SerializeToString()) for function in functions]
    del library.function[:]
    library.function.extend(copies)
    for gradient in library.gradient:
        gradient.function_name = new.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = new.get(gradient.gradient_func, gradient.gradient_func)
    for registered in library.registered_gradients:
        registered.registered_op_type = new[registered.registered_op_type]
        registered.gradient_func = new.get(registered.gradient_func, registered.gradient_func)
    library.registered_gradients.sort(key=lambda each: str(each.registered_op_type))
    _rename_objects(meta.object_graph_def, new)


def _named(nodes: Sequence[Any], functions: Mapping[str, Any], gradients: Mapping[str, str]) -> Iterator[str]:
    """Name the functions that nodes call, in order; a map's entries have none of their own, so by key."""
    for node in nodes:
        if node.op in functions:
            yield node.op
        if _GRADIENT in node.attr:
            yield gradients.get(node.attr[_GRADIENT].s.decode(errors="replace"), "")
        yield from _named_in(node.attr)


def _named_in(attributes: Any) -> Iterator[str]:
    for key in sorted(attributes):
        value = attributes[key]
        for each in [value.func] if value.HasField("func") else value.list.func:
            yield each.name
            yield from _named_in(each.attr)


def _objects_functions(objects: Any) -> Iterator[str]:
    for node in objects.nodes:
        if node.HasField("function"):
            yield from node.function.concrete_functions
        elif node.HasField("bare_concrete_function"):
            yield node.bare_concrete_function.concrete_function_name


def _rename_nodes(nodes: Sequence[Any], new: Mapping[str, str]) -> None:
    for node in nodes:
        node.op = new.get(node.op, node.op)
        _rename_attributes(node.attr, new)


def _rename_attributes(attributes: Any, new: Mapping[str, str]) -> None:
    for key in attributes:
        value = attributes[key]
        kind = value.WhichOneof("value")
        if kind in {"func", "list"}:
            for each in [value.func] if kind == "func" else value.list.func:
                each.name = new.get(each.name, each.name)
                _rename_attributes(each.attr, new)
        elif kind == "s" and (key == _GRADIENT or key.endswith("function_name")):  # of forward and backward functions
            value.s = new.get(value.s.decode(errors="replace"), "").encode() or value.s
        elif kind == "s" and key == "_user_specified_name":  # of a variable, its number in the process
            value.s = b"captured" if value.s.isdigit() else _UNUSED.sub("", value.s.decode(errors="replace")).encode()


def _rename_unused(function: Any) -> None:
    """Take the number of a loop's function out of the names of arguments that it has no use for."""
    for argument in function.signature.input_arg:
        argument.name = _UNUSED.sub("", argument.name)
    for node in function.node_def:
        if any("redundant_placeholder" in name for name in node.input):
            node.input[:] = [_UNUSED.sub("", name) for name in node.input]
    for key, name in function.ret.items():
        function.ret[key] = _UNUSED.sub("", name)


def _rename_objects(message: Any, new: Mapping[str, str]) -> None:
    """Rename functions in every text of a message that is one's name: there are many kinds of objects."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _rename_map(value, new, of_messages=field.message_type.fields_by_name["value"].message_type is not None)
        elif field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                _rename_objects(each, new)
        elif isinstance(value, str):
            setattr(message, field.name, new.get(value, value))
        elif field.type == field.TYPE_STRING:
            value[:] = [new.get(each, each) for each in value]


def _rename_map(entries: Any, new: Mapping[str, str], *, of_messages: bool) -> None:
    if not of_messages:
        return
    copies = {key: type(entries[key]).FromString(entries[key].SerializeToString()) for key in entries}
    entries.clear()
    for key, copy in copies.items():
        _rename_objects(copy, new)
        entries[new.get(key, key)].CopyFrom(copy)


def _rename_inputs(meta: Any, names: Mapping[str, str]) -> None:
    for signature in meta.signature_def.values():
        for written, wanted in names.items():
            if written != wanted and written in signature.inputs:
                signature.inputs[wanted].CopyFrom(signature.inputs[written])
                del signature.inputs[written]
    for node in meta.object_graph_def.nodes:  # so that TensorFlow's own Python calls it by the same names
        if node.HasField("bare_concrete_function"):
            words = node.bare_concrete_function.argument_keywords
            words[:] = [names.get(word, word) for word in words]

"""Which initializers of a model are trained: by name, before anything is lifted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import onnx

from irshap.errors import ModelError, near
from irshap.ir.types import DType
from irshap.lowering.emitter import FreshNames
from irshap.lowering.files.arrays import dtype_of
from irshap.lowering.files.protos import messages
from irshap.lowering.files.scopes import captured_names
from irshap.ops.program import PARAMETER, STATE

__all__ = ["chosen_initializers", "own_statistics", "untrained_initializers"]

_ALL = "*"
_EXCEPT = "!"


def chosen_initializers(model: onnx.ModelProto, patterns: str, statistics: bool) -> Mapping[str, str]:
    """The kind of input that each chosen initializer becomes: a parameter, or a running statistic.

    Args:
        patterns: names with wildcards, comma-separated; "!" before one takes what it fits out again.  "*"
            alone is every float tensor with an axis that a node reads, but for statistics of batch
            normalizations; "" is none.
        statistics: whether the running means and variances of batch normalizations become inputs, too.

    Raises:
        ModelError: a pattern fits no float initializer, or fits running statistics alone.
    """
    if not patterns and not statistics:
        return {}
    running = _running(model)
    floats = {t.name: t for t in model.graph.initializer if _is_trainable(t)}
    found = dict.fromkeys((n for n in floats if n in running), STATE) if statistics else {}
    why = _reasons(model)
    for pattern in (p.strip() for p in patterns.split(",")):
        if not pattern:
            continue
        called = pattern.removeprefix(_EXCEPT)
        fits = [name for name in floats if fnmatchcase(name, called)]
        weights = [name for name in fits if name not in running]
        if pattern == _ALL:
            weights = [name for name in weights if name not in why]
        if not weights:
            raise _none_fits(model, called, fits, [n for n in floats if n not in running])
        if pattern.startswith(_EXCEPT):
            found = {name: kind for name, kind in found.items() if kind == STATE or name not in weights}
        else:
            found |= dict.fromkeys(weights, PARAMETER)
    return found


def _none_fits(model: onnx.ModelProto, pattern: str, fits: list[str], known: list[str]) -> ModelError:
    """Why nothing that fits a pattern can be trained.

    Args:
        fits: floats that do, all running statistics.
        known: what can be trained.
    """
    if fits:
        what = f"{fits[0]!r} is a running statistic of a batch normalization, which isn't trained"
        return ModelError(what, mend=near(pattern, known))
    kinds = {t.name: dtype_of(t.data_type) for t in model.graph.initializer}
    half = [n for n, kind in kinds.items() if kind.is_float and fnmatchcase(n, pattern) and n not in known]
    if half:
        what = f"{half[0]!r} is {kinds[half[0]].value}, and what is trained is f32 or f64"
        return ModelError(what, mend="export the model in float32: steps in fewer digits get lost")
    return ModelError(f"no float initializer is called {pattern!r}", mend=near(pattern, known))


def untrained_initializers(model: onnx.ModelProto, handed: Collection[str]) -> Mapping[str, str]:
    """Why each float initializer isn't trained where "*" asked for all, by name.

    Args:
        handed: those that are, and the statistics that a step hands on.
    """
    why = _reasons(model)
    floats = [t for t in model.graph.initializer if dtype_of(t.data_type).is_float]
    return {t.name: why.get(t.name, "the loss doesn't depend on it") for t in floats if t.name not in handed}


def own_statistics(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an initializer for each running statistic that nothing else reads.

    Exporters make one of tensors that are equal, as those of a fresh network are; what is trained would take
    the statistics along.  torch's leaves an Identity with the name of the other tensor, which it gets back.
    """
    nodes, initializers = model.graph.node, {t.name: t for t in model.graph.initializer}
    same = {n.output[0]: n.input[0] for n in nodes if n.op_type == "Identity"}
    uses = Counter(name for node in nodes for name in (*node.input, *captured_names(node)))
    uses.update(v.name for v in model.graph.output)
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for at, node in enumerate(nodes):
        for i, name in enumerate(node.input[3:] if node.op_type == "BatchNormalization" else (), 3):
            holder = name
            while holder in same:
                holder = same[holder]
            if holder in initializers and (holder != name or uses[name] > 1):
                found[at, i] = name, holder
    if not found:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    names = FreshNames(_names(model))
    made.ir_version = max(made.ir_version, 4)  # before, initializers had to be inputs, too
    freed = set()
    for (at, i), (name, holder) in found.items():
        own = name if holder != name and uses[name] == 1 else names.fresh(name)
        if own == name:
            freed.add(name)
        made.graph.node[at].input[i] = own
        tensor = made.graph.initializer.add()
        tensor.CopyFrom(initializers[holder])
        tensor.name = own
    kept = [n for n in made.graph.node if not freed.intersection(n.output)]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def _names(model: onnx.ModelProto) -> list[str]:
    """Of all tensors, also of those in graphs inside, which may hide none from outside."""
    found: list[str] = []
    for part in messages(model):
        if isinstance(part, onnx.NodeProto):
            found += part.output
        elif isinstance(part, onnx.ValueInfoProto | onnx.TensorProto):
            found.append(part.name)
    return found


def _running(model: onnx.ModelProto) -> set[str]:
    nodes = (n for n in model.graph.node if n.op_type == "BatchNormalization")
    return {name for node in nodes for name in node.input[3:]}


def _is_trainable(tensor: onnx.TensorProto) -> bool:
    return dtype_of(tensor.data_type) in (DType.F32, DType.F64)


def _reasons(model: onnx.ModelProto) -> dict[str, str]:
    """Why float initializers aren't trained by "*", as far as the file tells it without being lifted."""
    read: set[str] = set()
    settings: set[str] = set()
    for node in model.graph.node:
        (settings if _reads_settings(node) else read).update(node.input, captured_names(node))
    running = _running(model)
    found = {}
    for tensor in model.graph.initializer:
        name = tensor.name
        if name in running:
            found[name] = "a running statistic of a batch normalization"
        elif not _is_trainable(tensor):
            found[name] = f"{dtype_of(tensor.data_type).value} isn't trained"
        elif name not in read:
            found[name] = "a setting of an op" if name in settings else "nothing reads it"
        elif not tensor.dims:
            found[name] = "a number without axes"
    return found


def _reads_settings(node: onnx.NodeProto) -> bool:
    """Whether its float operands aren't weights: scales, which must be known, and sizes as floats."""
    to = next((a.i for a in node.attribute if a.name == "to"), None)
    return node.op_type in _SETTINGS or (node.op_type == "Cast" and not dtype_of(int(to or 0)).is_float)


_SETTINGS = {"DequantizeLinear", "QuantizeLinear", "Resize", "Upsample"}

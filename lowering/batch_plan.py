"""Which axis of the inputs is the batch, and how it gets its name N."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from irshap.errors import ModelError, near
from irshap.ir.dims import N
from irshap.lowering.given import input_types

__all__ = ["BatchPlan", "forget_shapes", "named_batch", "with_more_rows", "with_shared_axes"]

Dim = onnx.TensorShapeProto.Dimension


@dataclass(frozen=True)
class BatchPlan:
    """How the batch gets its name N.

    Attributes:
        model: the model with that name in the types of its inputs.
        changes_shapes: whether the axis had the size 1, so that shapes inside the model change, too.
        unites: whether it had several names: that they are one batch has to be tried.
        axes: the inputs with a batch, and on which axis.
        why: why no axis was named, or only supposed to be; "" if one was.
    """

    model: onnx.ModelProto
    changes_shapes: bool = False
    unites: bool = False
    axes: Mapping[str, int] = field(default_factory=dict)
    why: str = ""


def named_batch(model: onnx.ModelProto, asked: Mapping[str, int]) -> BatchPlan:
    """Finds the batch: the leading axis of the inputs (initializers listed as inputs don't count).

    A name or an unnamed dimension there, the same for all inputs that don't have a fixed one, is the batch.
    Where there are several, it is the one that every input has on some axis, or else all of them; where all
    are fixed, those of size 1 are.

    Args:
        asked: the axis of the batch in some inputs and outputs; others that have its name there have it, too.

    Raises:
        ModelError: no such input, output or axis.
    """
    places = {name: list(t.shape.dim) for name, t in input_types(model).items() if t.shape.dim}
    axes = dict.fromkeys(places, 0)
    names = _asked_names(model, asked)
    if names:
        return _by_name(model, places, {n: a for n, a in asked.items() if n in places}, names)
    axes |= {name: axis for name, axis in asked.items() if name in places}
    dims = {name: places[name][axis] for name, axis in axes.items()}
    fixed = {name: d.dim_value for name, d in dims.items() if d.HasField("dim_value")}
    open_names = {d.dim_param for name, d in dims.items() if name not in fixed}
    if not places:
        return BatchPlan(model, why="the model has no input with a batch axis")
    elsewhere = _followed(model, places) if open_names else None
    if elsewhere is not None and (len(open_names) > 1 or elsewhere not in open_names):
        return _by_name(model, places, {}, {elsewhere})
    batched = {n: axes[n] for n in dims if n not in fixed} or {n: axes[n] for n, d in fixed.items() if d == 1}
    if not batched:
        sizes = ", ".join(f"{name!r} has {size}" for name, size in fixed.items())
        return BatchPlan(model, why=f"the inputs' leading dimensions are fixed: {sizes}")
    changes_shapes = len(fixed) == len(dims)
    why = ""
    if len(open_names) > 1:
        listed = " and ".join(sorted(repr(n) if n else "an unnamed one" for n in open_names))
        why = f"the inputs have several leading dimensions: {listed}"
    # others have it elsewhere: the states of a recurrent network are [layers, batch, features]
    for name in sorted(places.keys() - batched.keys()):
        if (axis := _axis_called(places[name], open_names - {""})) is not None:
            batched[name] = axis
    named = _renamed(model, batched, open_names, changes_shapes)
    return BatchPlan(named, changes_shapes, bool(why), batched, why)


def _asked_names(model: onnx.ModelProto, asked: Mapping[str, int]) -> set[str]:
    """The names of the axes that were said to be the batch."""
    types = {v.name: v.type.tensor_type for v in (*model.graph.input, *model.graph.output)}
    names = set()
    for name, axis in asked.items():
        if name not in types:
            raise ModelError(
                f"no input or output is called {name!r}", where="batch axis", mend=near(name, types)
            )
        dims = types[name].shape.dim
        if types[name].HasField("shape") and not 0 <= axis < len(dims):
            mend = f"axes count from 0 to {len(dims) - 1}" if dims else "it is a single number"
            raise ModelError(f"{name!r} has no axis {axis}", where="batch axis", mend=mend)
        if len(dims) > axis and dims[axis].dim_param:
            names.add(dims[axis].dim_param)
    return names


def _by_name(
    model: onnx.ModelProto,
    places: Mapping[str, Sequence[Dim]],
    asked: Mapping[str, int],
    names: Collection[str],
) -> BatchPlan:
    """The batch is every axis of such a name."""
    found = {name: _axis_called(dims, names) for name, dims in places.items()}
    batched = {name: axis for name, axis in found.items() if axis is not None} | dict(asked)
    return BatchPlan(_renamed(model, batched, names, False), False, len(names) > 1, batched)


def _axis_called(dims: Sequence[Dim], names: Collection[str]) -> int | None:
    return next((i for i, d in enumerate(dims) if d.dim_param in names), None)


def _followed(model: onnx.ModelProto, places: Mapping[str, Sequence[Dim]]) -> str | None:
    """The name that outputs lead with, where every input with open axes has it; None for any or no other.

    So it is with [time, batch, features] -> [batch, classes], and with states [layers, batch, features].
    """
    leading = {
        v.type.tensor_type.shape.dim[0].dim_param for v in model.graph.output if v.type.tensor_type.shape.dim
    }
    names = ({d.dim_param for d in dims if not d.HasField("dim_value")} for dims in places.values())
    opened = [found for found in names if found]
    shared = set.intersection(*opened) - {""} if opened else set()
    found = shared & leading
    return found.pop() if len(found) == 1 else None


def forget_shapes(model: onnx.ModelProto) -> None:
    """Drops, in place, what a model declares of the shapes of anything but its inputs."""
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _renamed(
    model: onnx.ModelProto, batched: Mapping[str, int], old: Collection[str], changes_shapes: bool
) -> onnx.ModelProto:
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for value in (*named.graph.input, *named.graph.output, *named.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in old:
                dim.dim_param = str(N)
            elif dim.dim_param == str(N):
                dim.dim_param = f"{N}_"
    for value in named.graph.input:
        if value.name in batched:
            value.type.tensor_type.shape.dim[batched[value.name]].Clear()
            value.type.tensor_type.shape.dim[batched[value.name]].dim_param = str(N)
    if changes_shapes:
        forget_shapes(named)
    return named


def with_shared_axes(plan: BatchPlan) -> BatchPlan | None:
    """The plan with one name for the open axes that inputs have at the same place; None where they have one.

    Some writers name no axis, or those of each tensor by themselves: a sequence's length, and its mask's.
    """
    shared = onnx.ModelProto()
    shared.CopyFrom(plan.model)
    names: dict[int, str] = {}
    changed = False
    for name, type in input_types(shared).items():
        for i, dim in enumerate(type.shape.dim):
            if dim.HasField("dim_value") or i == plan.axes.get(name):
                continue
            changed |= i in names and dim.dim_param != names[i]
            dim.dim_param = names.setdefault(i, dim.dim_param or f"axis_{i}")
    return replace(plan, model=shared) if changed else None


def with_more_rows(plan: BatchPlan) -> BatchPlan | None:
    """The plan with a batch in inputs of which one axis alone is open, and not the first; None without any.

    So it is with the states of a recurrent network, [layers, batch, states]; it has to be tried.
    """
    places = {
        name: [i for i, d in enumerate(type.shape.dim) if not d.HasField("dim_value")]
        for name, type in input_types(plan.model).items()
        if name not in plan.axes
    }
    found = {name: axes[0] for name, axes in places.items() if len(axes) == 1}
    if not found or not plan.axes:
        return None
    axes = {**plan.axes, **found}
    return replace(plan, model=_renamed(plan.model, axes, (str(N),), False), unites=True, axes=axes)

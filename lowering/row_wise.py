"""Ops that irshap has no rule for, but of which it is known that they keep the rows of a batch apart.

So an op without a rule upstream of what is attributed (a label encoder before a lookup, a recurrent layer in
a form that isn't modeled) does no harm, and one behind the explained tensor neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx import NodeProto, helper

from irshap.ir.core import TypeMismatch, Value
from irshap.ir.dims import Dim
from irshap.ir.types import TensorType, Type
from irshap.lowering.importer import kind_of
from irshap.ops.families import broadcast

__all__ = ["Rows", "rows_of_node"]

_ELEMENTWISE = {
    "BitShift",
    "BitCast",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "RegexFullMatch",
}
_ELEMENTWISE |= {"StringConcat", "ai.onnx.ml.CategoryMapper", "ai.onnx.ml.LabelEncoder"}
_ELEMENTWISE |= {"ai.onnx.ml.Binarizer"}
"""Each element of the result is made of the elements in its place; operands broadcast."""

_LEADING = {"Col2Im": 1, "GridSample": 2, "STFT": 1, "TfIdfVectorizer": 1}
_LEADING |= {
    f"ai.onnx.ml.{name}": 1
    for name in (
        "ArrayFeatureExtractor",
        "DictVectorizer",
        "Imputer",
        "LinearRegressor",
        "Normalizer",
        "OneHotEncoder",
        "SVMRegressor",
        "Scaler",
        "TreeEnsemble",
        "TreeEnsembleRegressor",
        "ZipMap",
    )
}
_LEADING["ai.onnx.ml.FeatureVectorizer"] = 2**31
"""How many operands have a row for each row of the results, all on the first axis."""

_GIVEN = {"DeformConv": (0, -1, 0, -1, 0), "Det": (0,), "StringSplit": (0,), "TensorScatter": (0, 0, 0)}
"""The axis of each operand that holds the rows, where not all of them have one."""

_CLASSIFIERS = {f"ai.onnx.ml.{name}Classifier" for name in ("Linear", "SVM", "TreeEnsemble")}

_SMALLEST = {"Det": 3, "StringSplit": 1}
"""How many axes there are at least where the first one holds rows, if not 2."""

_NONE = -1


@dataclass(frozen=True)
class Rows:
    """Where a node keeps the batch.

    `axes`: the axis of each operand that may hold it, and of each result, -1 for none; () where nothing is
    known.  `elementwise`: on any axis, the same for all.
    """

    elementwise: bool = False
    axes: tuple[tuple[int, ...], ...] = ()
    behind: tuple[tuple[int, ...], ...] = ()
    """The sizes behind the rows in each result, where its op tells them and inference doesn't."""

    def of(self, operands: Sequence[Value], types: Sequence[Type]) -> list[Type]:
        """Result types, in which sizes that inference left open are those of the operands."""
        dims = [v.type.shape if isinstance(v.type, TensorType) else None for v in operands]
        return [self._type(i, kind, dims) for i, kind in enumerate(types)]

    def _type(self, i: int, kind: Type, operands: Sequence[Sequence[Dim] | None]) -> Type:
        if not isinstance(kind, TensorType):
            return kind
        if self.elementwise:
            whole = _broadcast(operands)
            return kind if whole is None else kind.with_shape(whole)
        if kind.shape is None:
            return kind.with_shape((_rows(operands), *self.behind[i])) if self.behind else kind
        return kind.with_shape(self._with_rows(kind.shape, self.axes[1][i], operands)) if self.axes else kind

    def _with_rows(
        self, shape: Sequence[Dim], axis: int, operands: Sequence[Sequence[Dim] | None]
    ) -> tuple[Dim, ...]:
        given = [d[a] for d, a in zip(operands, self.axes[0], strict=True) if d and 0 <= a < len(d)]
        if not given or not 0 <= axis < len(shape) or isinstance(shape[axis], int):
            return tuple(shape)
        return (*shape[:axis], given[0], *shape[axis + 1 :])


def _rows(shapes: Sequence[Sequence[Dim] | None]) -> Dim:
    return next((s[0] for s in shapes if s), 1)


def _broadcast(shapes: Sequence[Sequence[Dim] | None]) -> tuple[Dim, ...] | None:
    known = [tuple(s) for s in shapes if s is not None]
    if not known or len(known) < len(shapes):
        return None
    try:
        return broadcast(known)
    except TypeMismatch:
        return None


def rows_of_node(proto: NodeProto, operands: Sequence[Value], captures: int) -> Rows:
    """What is known of a node that stays opaque; `captures`: how many operands its subgraphs read, too."""
    kind = kind_of(proto)
    shapes = [v.type.shape for v in operands if isinstance(v.type, TensorType)]
    if captures or len(shapes) < len(operands) or any(s is None for s in shapes):
        return Rows()
    rank = len(shapes[0] or ()) if shapes else 0
    if kind in _ELEMENTWISE:
        return Rows(elementwise=True)
    if rank < _SMALLEST.get(kind, 2):
        return Rows()  # a vector is one sample
    if kind in _CLASSIFIERS:
        names = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
        classes = max((len(a.ints) + len(a.strings) for a in proto.attribute if a.name in names), default=0)
        found = _axes(proto, [0], [0, 0])
        return replace(found, behind=((), (classes,)) if classes and len(found.axes[1]) == 2 else ())
    if kind in _LEADING:
        return _axes(proto, [0] * min(_LEADING[kind], len(proto.input)), [0] * len(proto.output))
    if kind in _GIVEN:
        return _axes(proto, _GIVEN[kind], [0] * len(proto.output))
    attributes: Mapping[str, Any] = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    along = attributes.get("axis", 1 if kind == "DFT" else 0)
    if (kind == "ArgMin" or (kind == "DFT" and len(proto.input) < 3)) and along > 0:
        return _axes(proto, [0], [0])
    if kind == "ReverseSequence":
        batch = attributes.get("batch_axis", 1)
        return _axes(proto, [batch, 0], [batch])
    if kind in ("GRU", "LSTM", "RNN"):
        first = bool(attributes.get("layout", 0))
        x, y, state = (0, 0, 0) if first else (1, 2, 1)
        return _axes(proto, [x, _NONE, _NONE, _NONE, 0, state, state, _NONE], [y, state, state])
    return Rows()


def _axes(proto: NodeProto, given: Sequence[int], told: Sequence[int]) -> Rows:
    full = [*given, *[_NONE] * len(proto.input)]
    operands = tuple(axis for axis, name in zip(full, proto.input, strict=False) if name)
    return Rows(axes=(operands, tuple(axis for axis, name in zip(told, proto.output, strict=False) if name)))

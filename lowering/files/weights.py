"""The weights of a model that is read: large ones go to a temporary file, and are mapped from there."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from math import prod

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from irshap.ir.types import Array
from irshap.lowering.files.held import data_of, hold
from irshap.lowering.files.protos import OUTLINE_OVER, is_outlined, nbytes, outline
from irshap.lowering.files.spool import Region, Spool
from irshap.lowering.files.wire import bare, resident

__all__ = ["HELD_FROM", "Weights"]

HELD_FROM = 16 * 2**20
"""Bytes of a model's weights from which on copies of them are worth avoiding."""


class Weights:
    """Collects the data of large tensors, which then have it as arrays that are mapped.

    Attributes:
        arrays: these, once they are held.
    """

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self._taken: list[tuple[TensorProto, Region]] = []
        self._spool: Spool | None = None

    def takes(self, tensor: TensorProto) -> bool:
        """Whether a tensor's raw data is large, and what numpy has in memory."""
        if sys.byteorder != "little" or nbytes(tensor) <= OUTLINE_OVER:
            return False
        # what takes less than a byte is packed there
        itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        return nbytes(tensor) == itemsize * prod(tensor.dims)

    def take(self, tensor: TensorProto, data: Iterable[bytes | memoryview]) -> None:
        """Writes a tensor's data away, piece by piece."""
        self._spool = self._spool or Spool()
        region = self._spool.region(nbytes(tensor))
        for piece in data:
            region.append(piece)
        self._taken.append((tensor, region))

    def hold(self) -> None:
        """Gives the tensors their data: no more is taken."""
        for tensor, region in self._taken:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            self.arrays.append(region.array(dtype, tuple(tensor.dims)))
            hold(tensor, self.arrays[-1])

    def copied(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a model in memory."""
        large = [t for t in model.graph.initializer if is_outlined(t)]
        if sum(map(nbytes, large)) <= HELD_FROM:
            copy = onnx.ModelProto()
            copy.CopyFrom(resident(model))
            return copy
        copy = outline(model)
        for source, tensor in zip(model.graph.initializer, copy.graph.initializer, strict=True):
            if is_outlined(source):
                self._put(tensor, data_of(source))
        return copy

    def parsed(self, data: bytes) -> onnx.ModelProto:
        """A serialized model.

        Raises:
            DecodeError: it isn't one.
        """
        if len(data) <= HELD_FROM:
            return onnx.ModelProto.FromString(data)
        try:
            shell, found = bare(memoryview(data), OUTLINE_OVER)
            model = onnx.ModelProto.FromString(shell)
        except (DecodeError, IndexError, ValueError):
            return onnx.ModelProto.FromString(data)  # which says what is wrong
        for tensor, raw in zip(model.graph.initializer, found, strict=True):
            if raw is not None:
                self._put(tensor, raw)
        return model

    def _put(self, tensor: TensorProto, raw: bytes | memoryview) -> None:
        # what has another size than its type and dims say is refused as it stands
        if self.takes(tensor) and len(raw) == nbytes(tensor):
            self.take(tensor, [raw])
        else:
            tensor.raw_data = bytes(raw)

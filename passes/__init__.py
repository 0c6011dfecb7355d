"""The passes, one a file.  Importing this package registers all of them."""

from irshap.passes import (
    autodiff,
    bind_references,
    broadcast_target,
    canonicalize,
    conv_adjoint,
    dce,
    deeplift,
    eliminate_split_tile,
    fold_references,
    fuse_activations,
    gradient,
    stream,
    target,
    widen,
)

__all__ = [
    "autodiff",
    "bind_references",
    "broadcast_target",
    "canonicalize",
    "conv_adjoint",
    "dce",
    "deeplift",
    "eliminate_split_tile",
    "fold_references",
    "fuse_activations",
    "gradient",
    "stream",
    "target",
    "widen",
]

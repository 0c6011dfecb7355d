"""The passes, one a file.  Importing this package registers all of them."""

from irshap.passes import autodiff, bind_references, dce, deeplift, gradient, target

__all__ = ["autodiff", "bind_references", "dce", "deeplift", "gradient", "target"]

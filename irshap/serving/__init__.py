"""Folders that servers take: an explained file, what they want to know of it, and what runs it."""

from irshap.serving.package import KINDS, Packed, package

__all__ = ["KINDS", "Packed", "package"]

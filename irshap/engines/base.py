"""What an engine is: a program that loads an ONNX file and runs it on arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from irshap.errors import UserError
from irshap.runtime.arrays import Arrays

__all__ = ["Engine", "EngineFailed", "first_line"]


class EngineFailed(UserError):
    """An engine refused to load a file, or to run it."""


class Engine(ABC):
    """A program that runs ONNX files."""

    name: ClassVar[str]
    """What it is called on the command line."""

    title: ClassVar[str]
    """What it calls itself."""

    @abstractmethod
    def version(self) -> str:
        """The installed version.

        Raises:
            UserError: it isn't installed; says how to install it.
        """

    @abstractmethod
    def run(self, model: Path, feeds: Sequence[Mapping[str, object]]) -> list[Arrays]:
        """Loads a file once, and runs it on each feed: the outputs by name.

        Args:
            model: the path of an ONNX file.
            feeds: numpy arrays by input, of the types that the file takes.

        Raises:
            EngineFailed: the file can't be loaded or run there.
            UserError: the engine isn't installed.
        """


def first_line(error: BaseException | str) -> str:
    """An engine's message, cut to its first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

"""A pytest plugin that writes down what the tests compile, and the graphs that they run passes on.

    pytest -p sameness.recording --recorded=FOLDER

Each becomes a command for the collector: a line of JSON, and the files that it names as {cases}/FILE.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import onnx
import pytest

import irshap
from irshap.text import print_graph
from sameness.files import OUT, Files, options

MOST = 12
"""Records of one test: property tests try hundreds of graphs."""
LARGEST = 1 << 20
"""Bytes of a command's files: larger models are made to be refused, or to take long."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--recorded", type=Path, required=True, metavar="FOLDER")


def pytest_configure(config: pytest.Config) -> None:
    Recorder(config.getoption("--recorded")).install()


class Recorder:
    """Stands before `compile` and `PassManager.run`; what they call of each other isn't written down."""

    def __init__(self, folder: Path) -> None:
        self.files = Files(folder)
        self.lines = folder / f"{os.getpid()}.jsonl"
        self.within = False
        self.counts: Counter[str] = Counter()

    def install(self) -> None:
        """Takes the place of `compile` wherever irshap names it, before any test imports it."""
        home = inspect.getmodule(irshap.compile)
        wrapped = self._before(irshap.compile, self._compile)
        home.compile = irshap.compile = wrapped
        irshap.PassManager.run = self._before(irshap.PassManager.run, self._run)

    def _before(self, function: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def recording(*args: Any, **kwargs: Any) -> Any:
            with self._outermost() as outermost:
                if outermost and self._wanted():
                    # What can't be written down, such as a mock of a model, can't be read from a file.
                    with suppress(Exception):
                        note(signature.bind(*args, **kwargs).arguments)
                return function(*args, **kwargs)

        return recording

    @contextmanager
    def _outermost(self) -> Iterator[bool]:
        outermost, self.within = not self.within, True
        try:
            yield outermost
        finally:
            self.within = not outermost

    def _wanted(self) -> bool:
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        self.counts[test] += 1
        return self.counts[test] <= MOST

    def _compile(self, given: Mapping[str, Any]) -> None:
        bound = [f"--references={self._arrays(given['references'])}"] if "references" in given else []
        self._write("compile", self._model(given["model"]), *bound, *options(given, self._arrays))

    def _run(self, given: Mapping[str, Any]) -> None:
        manager, ir, context = given["self"], given["ir"], given.get("context")
        found = {} if context is None else {"references": context.references, "weights": context.weights}
        more = [f"--{k}={self._arrays(v)}" for k, v in found.items() if v is not None and len(v)]
        gives_model = manager.passes[-1].gives == "model"
        if isinstance(ir, (str, os.PathLike, bytes, onnx.ModelProto)):
            passes = manager.text if gives_model else f"{manager.text},lower"
            self._write("compile", self._model(ir), f"--passes={passes}", *more)
        else:
            text = self.files.add(print_graph(ir).encode(), ".ir")
            output = [OUT] if gives_model else []
            self._write("opt", text, f"--passes={manager.text}", *more, *output)

    def _model(self, model: Any) -> str:
        if isinstance(model, onnx.ModelProto):
            name = self.files.model(model)
        else:
            name = self.files.add(model, ".onnx") if isinstance(model, bytes) else self.files.copy(model)
        return name

    def _arrays(self, given: Any) -> str:
        is_file = isinstance(given, (str, os.PathLike))
        return self.files.copy(given) if is_file else self.files.arrays(given)

    def _write(self, *command: str) -> None:
        files = [self.files.folder / a.partition("{cases}/")[2] for a in command if "{cases}/" in a]
        if sum(file.stat().st_size for file in files) <= LARGEST:
            with self.lines.open("a") as lines:
                lines.write(json.dumps(command) + "\n")

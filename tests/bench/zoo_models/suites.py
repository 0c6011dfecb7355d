"""The suites by name: the models that each lists, how one is built, and how its cases are exported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo_models.case import Case, Inputs, variants

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """A suite by what its module calls its functions; the module is read when it is asked for something.

    `models` gives whether each takes inputs of several lengths; `make` a seeded model and its inputs.  A
    module's `cases` lists those of a model, and its `export` writes one's file and gives the inputs that go
    with it: `variants` and torch's exporters where it has none.  `exporter` is run for it, in a process of
    its own.
    """

    name: str
    module: str
    listed: str = "models"
    made: str = "make"
    exporter: str = "zoo_models.exporting"

    def models(self) -> dict[str, bool]:
        found: dict[str, bool] = getattr(self._module, self.listed)()
        return found

    def cases(self, model: str) -> list[Case]:
        listed: Callable[[str, str, bool], list[Case]] = getattr(self._module, "cases", variants)
        return listed(self.name, model, self.models()[model])

    def build(self, model: str) -> tuple[Any, Inputs]:
        make = getattr(self._module, self.made)
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(0)
        made: tuple[Any, Inputs] = make(model)
        return made

    def export(self, case: Case, model: Any, inputs: Inputs, file: Path) -> Inputs:
        own = getattr(self._module, "export", None)
        write = import_module("zoo_models.torch_export").export if own is None else own
        written: Inputs = write(case, model, inputs, file)
        return written

    @property
    def _module(self) -> Any:
        return import_module(f"zoo_models.{self.module}")


SUITES = {
    s.name: s
    for s in (
        *(Suite(n, "hugging", n, f"make_{n}") for n in ("text", "audio", "images", "videos")),
        *(Suite(n, "vision", f"{n}_models", f"make_{n}") for n in ("torchvision", "timm")),
        *(
            Suite(n, n)
            for n in ("recurrent", "genomics", "recommender", "graph", "series", "sklearn", "forms")
        ),
        Suite("keras", "keras", exporter="zoo_models.keras"),
    )
}

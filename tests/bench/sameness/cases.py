"""What is compiled, printed and costed on both trees: commands, and the files that they read.

Models, references and golden files come from the tests of the tree before, so that both trees get the same
and what is added later is nobody's difference.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from sameness.files import OUT, Files, options

__all__ = ["Case", "Corpus", "add_networks", "add_recorded", "add_tests"]

PIPELINES = {
    "default": (),
    "naive": ("--passes=@naive",),
    "cuda": ("--for=cuda",),
    "gradient": ("--method=gradient",),
}
FUZZ_SEEDS = range(41)
EVERY_OPTION = ("digits", "smooth_mlp", "two_inputs", "text_dynamo")
SOME_OPTIONS = ("densenet_dynamo", "efficientnet_torchscript", "vit_dynamo")
"""Larger fixtures, with the options that change most of the program."""
HAND_WRITTEN = (
    "lift,target{target=top-2},canonicalize,autodiff,deeplift{rule=mixed},bind-references,dce,lower"
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "reveal-cancel": ("--rule=reveal-cancel",),
    "reveal-cancel naive": ("--rule=reveal-cancel", "--passes=@naive"),
    "mixed": ("--rule=mixed",),
    "fold": ("--strategy=fold",),
    "stream": ("--strategy=stream",),
    "recompute": ("--strategy=recompute",),
    "memory limit": ("--memory-limit=20MiB",),
    "external data": ("--strategy=stream", "--external-data"),
    "fp16": ("--fp16",),
    "fp16 cuda": ("--fp16", "--for=cuda"),
    "fp16 mixed": ("--fp16", "--rule=mixed"),
    "class 0": ("--target=0",),
    "last class": ("--target=-1",),
    "top-3": ("--target=top-3",),
    "all classes": ("--target=all",),
    "all classes naive": ("--target=all", "--passes=@naive"),
    "target input": ("--target=input", "--emit=completeness_error"),
    "error": ("--emit=completeness_error",),
    "error cuda": ("--emit=completeness_error", "--for=cuda"),
    "weights": ("--weights={weights}",),
    "weights naive": ("--weights={weights}", "--passes=@naive", "--emit=completeness_error"),
    "residual": ("--on-incomplete=residual",),
    "hand-written": (f"--passes={HAND_WRITTEN}",),
    "gradient top-3": ("--method=gradient", "--target=top-3"),
    "gradient target input": ("--method=gradient", "--target=input"),
    "gradient all cuda": ("--method=gradient", "--target=all", "--for=cuda"),
}
SOME_VARIANTS = ("reveal-cancel", "mixed", "stream", "recompute", "fp16 cuda", "all classes", "error")
REFUSED: dict[str, tuple[str, ...]] = {
    "no such class": ("--target=99",),
    "no such target": ("--target=nothing",),
    "no such tensor": ("--wrt=nothing",),
    "no such output": ("--output-name=nothing",),
    "no such rule": ("--rule=nothing",),
    "no such pass": ("--passes=lift,nothing,lower",),
    "no such strategy": ("--strategy=nothing",),
    "two devices": ("--passes=@naive", "--for=cuda"),
    "two targets": (f"--passes={HAND_WRITTEN}", "--target=1"),
    "two rules": (f"--passes={HAND_WRITTEN}", "--rule=reveal-cancel"),
    "nothing to stream": ("--passes=@gradient", "--strategy=stream"),
    "gradient of references": ("--method=gradient",),
    "rule of a gradient": ("--method=gradient", "--rule=mixed"),
    "weights of others": ("--weights={weights}",),
    "no end": ("--passes=lift,target,canonicalize,autodiff,deeplift,bind-references,dce",),
}


@dataclass(frozen=True)
class Case:
    """One command; since files are named by their content, the same arguments are the same case."""

    name: str
    group: str
    kind: str
    """What is compared: the parts of the "model" that it writes, or the "text" or "json" that it prints."""
    arguments: tuple[str, ...]


class Corpus:
    """Cases, and their files."""

    def __init__(self, folder: Path) -> None:
        self.files = Files(folder)
        self.cases: dict[str, Case] = {}

    def add(self, group: str, name: str, command: str, *arguments: str) -> None:
        """Adds `irshap COMMAND ARGUMENTS`, and to compile where it writes."""
        if command == "compile":
            arguments = (*arguments, OUT)
        kind = "model" if OUT in arguments else "json" if "--json" in arguments else "text"
        full = f"{group}: {name}"
        if full in self.cases:
            raise ValueError(f"two cases are called {full!r}")
        self.cases[full] = Case(full, group, kind, (command, *arguments))

    def compile(self, group: str, name: str, model: str, references: str, *arguments: str) -> None:
        """Adds a compilation; the method gradient takes no references."""
        given = () if "--method=gradient" in arguments else (f"--references={references}",)
        self.add(group, name, "compile", model, *given, *arguments)

    def write(self, name: str, cases: list[Case]) -> Path:
        """The list that the collector reads."""
        path = self.files.folder / name
        path.write_text(json.dumps([asdict(case) for case in cases]))
        return path


@dataclass(frozen=True)
class Fixture:
    """A committed model with references, as arguments name them."""

    name: str
    model: str
    references: str
    wrt: str | None


def add_tests(corpus: Corpus, tree: Path) -> None:
    """Fixtures, golden files, the oracle's models of one op, and random models."""
    for fixture in _fixtures(corpus.files, tree):
        _add_fixture(corpus, fixture)
        if fixture.name in EVERY_OPTION:
            _add_options(corpus, fixture, VARIANTS)
            _add_others(corpus, fixture)
        if fixture.name in SOME_OPTIONS:
            _add_options(corpus, fixture, SOME_VARIANTS)
        if fixture.name == "two_inputs":
            _add_two_inputs(corpus, fixture)
        if fixture.name == "digits":
            many = corpus.files.copy(tree / "irshap/demo/digits_references.npy")
            for strategy in ("fold", "stream", "recompute"):
                name = f"digits, many references, {strategy}"
                corpus.compile("options", name, fixture.model, many, f"--strategy={strategy}")
    _add_goldens(corpus, tree / "tests" / "golden")
    with _importing(tree / "tests"):
        _add_single_ops(corpus)
        _add_fuzz(corpus)


def _fixtures(files: Files, tree: Path, count: int = 3) -> Iterator[Fixture]:
    """The models of tests/fixtures, and the demo's, which the digits' data belong to."""
    folder = tree / "tests" / "fixtures"
    paths = {"digits": tree / "irshap/demo/digits.onnx"}
    paths |= {path.stem: path for path in sorted(folder.rglob("*.onnx"))}
    for name, path in paths.items():
        beside = path.parent if folder in path.parents else folder
        family, _, export = name.rpartition("_")
        data = next(file for n in (name, family) if (file := beside / f"{n}.npz").exists())
        arrays = dict(np.load(data))
        names, wrt = [str(n) for n in arrays["input_names"]], None
        if "references.tokens" in arrays:
            names, wrt = ["tokens"], str(arrays[f"embedded_name.{export}"])
        references = files.arrays({n: arrays[f"references.{n}"][:count] for n in names})
        yield Fixture(name, files.copy(path), references, wrt)


def _add_fixture(corpus: Corpus, it: Fixture) -> None:
    interior = (f"--wrt={it.wrt}",) if it.wrt else ()
    for pipeline, arguments in PIPELINES.items():
        # Token ids have no derivative.
        more = interior if pipeline == "gradient" else ()
        group = f"fixtures {pipeline}"
        corpus.compile(group, it.name, it.model, it.references, *arguments, *more)
        if interior and not more:
            name = f"{it.name}, interior"
            corpus.compile(group, name, it.model, it.references, *arguments, *interior)
    corpus.add("print", it.name, "print", it.model)


def _add_options(corpus: Corpus, it: Fixture, variants: Iterable[str]) -> None:
    weights = corpus.files.arrays([0.5, 0.25, 1.0])
    for variant in variants:
        used = [a.replace("{weights}", weights) for a in VARIANTS[variant]]
        corpus.compile("options", f"{it.name}, {variant}", it.model, it.references, *used)


def _add_others(corpus: Corpus, it: Fixture) -> None:
    """Models and texts without attributions, refusals, predictions of costs."""
    corpus.add("options", f"{it.name}, back", "compile", it.model, "--passes=lift,lower")
    attributed = "--passes=lift,target,canonicalize,autodiff,deeplift"
    corpus.add("print", f"{it.name}, attributed", "print", it.model, attributed)
    costs: list[tuple[str, ...]] = [()]
    if it.name in ("digits", "two_inputs"):
        costs += [
            ("--passes=@naive", "--samples=3", "--session=explainer"),
            ("--passes=@cuda", "--device=T4"),
        ]
        given = f"--references={it.references}"
        for variant, arguments in REFUSED.items():
            used = [a.replace("{weights}", corpus.files.arrays([1.0] * 7)) for a in arguments]
            corpus.add("refusals", f"{it.name}, {variant}", "compile", it.model, given, *used)
        corpus.add("refusals", f"{it.name}, no references", "compile", it.model)
    for setting in costs:
        corpus.add("cost", " ".join((it.name, *setting)), "cost", it.model, "--json", *setting)


def _add_two_inputs(corpus: Corpus, it: Fixture) -> None:
    for pipeline, arguments in PIPELINES.items():
        for what in ("image", "features", "features,image"):
            name = f"{it.name}, {pipeline} of {what}"
            corpus.compile("options", name, it.model, it.references, *arguments, f"--wrt={what}")
    for what in ("image", "features"):
        name = f"{it.name}, context {what}"
        corpus.compile("options", name, it.model, it.references, f"--context={what}")


def _add_goldens(corpus: Corpus, folder: Path) -> None:
    """Each golden file's graph through its own pipeline; the references are those of its test."""
    references = corpus.files.arrays({"x": np.array([[1.0, 2.0], [-3.0, 0.5]])})
    bound = (f"--references={references}", f"--weights={corpus.files.arrays([0.25, 0.75])}")
    for path in sorted(folder.rglob("*.ir")):
        head = path.read_text().partition("\n// ----\n")[0]
        passes = next(x.removeprefix("// RUN:").strip() for x in head.splitlines() if x.startswith("// RUN:"))
        more = bound if path.parent != folder else ()
        text = corpus.files.add(head.encode(), ".ir")
        corpus.add("golden files", path.stem, "opt", text, f"--passes={passes}", *more)


@contextmanager
def _importing(tests: Path) -> Iterator[None]:
    """Modules of that tree's tests that know nothing of irshap can be imported, wherever in it they stand."""
    wanted = ("fuzz_graphs.py", "two_world_cases.py")
    before = list(sys.path)
    sys.path[:0] = [str(path.parent) for name in wanted for path in tests.rglob(name)]
    try:
        yield
    finally:
        sys.path[:] = before


def _add_single_ops(corpus: Corpus) -> None:
    """The oracle's models, an op each, against samples that the oracle draws."""
    for index, case in enumerate(importlib.import_module("two_world_cases").CASES):
        drawn = [case.feeds(seed) for seed in (1, 2)]
        references = corpus.files.arrays({n: np.concatenate([d[n] for d in drawn]) for n in drawn[0]})
        model = corpus.files.model(case.model())
        for pipeline in ("default", "gradient"):
            group = f"single ops {pipeline}"
            corpus.compile(group, f"{index} {case}", model, references, *PIPELINES[pipeline])


def _add_fuzz(corpus: Corpus) -> None:
    generate = importlib.import_module("fuzz_graphs").generate
    for seed in FUZZ_SEEDS:
        if (case := generate(seed)) is None:
            continue
        model, references = corpus.files.model(case.model), corpus.files.arrays(case.references)
        more = list(options(case.arguments, corpus.files.arrays))
        for pipeline in ("default", "naive"):
            corpus.compile(f"fuzz {pipeline}", str(seed), model, references, *PIPELINES[pipeline], *more)


def add_recorded(corpus: Corpus, folder: Path) -> None:
    """What recording.py wrote down while the tests ran."""
    for file in folder.glob("*.*"):
        if file.suffix != ".jsonl":
            corpus.files.copy(file)
    lines = sorted({line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()})
    for line in lines:
        command, *arguments = json.loads(line)
        corpus.add(f"recorded {command}", sha256(line.encode()).hexdigest()[:12], command, *arguments)


def add_networks(corpus: Corpus, folder: Path, names: Sequence[str]) -> None:
    """The benchmark's networks, as networks.py wrote them to `folder`, against random references."""
    drawn = {r: np.random.default_rng(r).standard_normal((r, 3, 224, 224)) for r in (2, 20)}
    references = {r: corpus.files.arrays(images.astype(np.float32)) for r, images in drawn.items()}
    for name in names:
        model = corpus.files.copy(folder / f"{name}_torchscript.onnx")
        for count, file in references.items():
            for pipeline in ("default", "naive", "cuda"):
                full = f"{name} {pipeline} R={count}"
                corpus.compile("networks", full, model, file, *PIPELINES[pipeline])
        corpus.compile("networks", f"{name} gradient", model, "", *PIPELINES["gradient"])
        corpus.add("networks cost", name, "cost", model, "--json", "--references=20")

"""Writes the numbers of docs/training.md: what priors on attributions do, in small.

    python tests/bench/training_study.py [--seeds 20] [--write docs/training.md]

(a) a table with few training samples, the sparse prior by several methods (the picture of Hesse et al. 2021);
(b) digits with a corner mark that gives the label away in training only, right-reasons; (c) total variation.
The page's part between its marks is replaced, and its picture goes to images/training.png beside it.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import irshap
from irshap import demo
from irshap.ir.types import Array
from irshap.training import Settings, Trainer, TrainingStep, train_step

BEGIN, END = "<!-- study -->", "<!-- end of the study -->"


# ---- networks that begin anew -----------------------------------------------------------------------------


def tabular(features: int, seed: int, hidden: int = 32) -> onnx.ModelProto:
    """Two hidden layers without biases, for two classes: an X-DNN; weights after He et al. 2015."""
    rng = np.random.default_rng(seed)
    sizes = (features, hidden, hidden, 2)
    nodes, weights, last = [], [], "x"
    for i in range(3):
        w = rng.normal(size=(sizes[i + 1], sizes[i])) * (2 / sizes[i]) ** 0.5
        weights.append(numpy_helper.from_array(w.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{i}"], ["y" if i == 2 else f"h{i}"], transB=1))
        if i < 2:
            nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"]))
        last = f"r{i}"
    ends = [helper.make_tensor_value_info(n, 1, ["N", s]) for n, s in (("x", features), ("y", 2))]
    graph = helper.make_graph(nodes, "table", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def digits_net(seed: int) -> onnx.ModelProto:
    """The demo's CNN as it might begin."""
    model, rng = onnx.load(demo.model_path()), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            shape = tuple(tensor.dims)
            scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.0
            array = (rng.normal(size=shape) * scale).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def outputs(model: onnx.ModelProto, x: Array) -> Array:
    """What a model gives."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (name,) = (i.name for i in session.get_inputs())
    return np.asarray(session.run(None, {name: x})[0])


def prior_of(step: TrainingStep, model: onnx.ModelProto, x: Array, labels: Array) -> float:
    """What a step says of a prior for other weights and data."""
    session = onnxruntime.InferenceSession(step.model.SerializeToString())
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    training = step.training
    given = {training.inputs[0]: x, "labels": labels, "sample_weights": np.ones(len(x), np.float32)}
    given |= {"prior_weight": np.array(0, np.float32)}
    given |= {name: values[name] for name in training.parameters}
    return float(session.run(["prior"], given)[0])


# ---- (a) a table with few samples -------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A way to train: a prior by a method, with references for each sample."""

    name: str
    method: str | None = None
    references: int = 1


WAYS = (
    Way("no prior"),
    Way("x-gradient", "x-gradient"),
    Way("gradient", "gradient"),
    Way("expected gradients, 1 reference", "expected-gradients", 1),
    Way("expected gradients, 10 references", "expected-gradients", 10),
)
WEIGHTS = (0.01, 0.03, 0.1, 0.3)


def auc(score: Array, labels: Array) -> float:
    """The area under the ROC curve: how often a positive's score is above a negative's."""
    positive, negative = score[labels == 1][:, None], score[labels == 0][None]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())


@dataclass(frozen=True)
class Row:
    """What one way came to, over the seeds."""

    way: str
    weight: float
    aucs: Array
    ginis: Array
    seconds: float


def table_study(
    x: Array, labels: Array, seeds: int, *, train: int = 20, held: int = 100, epochs: int = 200
) -> list[Row]:
    """Each way with the weight that is best on held samples in the mean; the rest tests."""
    sparse = train_step(tabular(x.shape[1], 0), prior="sparse", method="x-gradient", optimizer="gradients")
    rows = []
    for way in WAYS:
        options: dict[str, Any] = {} if way.method is None else {"prior": "sparse", "method": way.method}
        step = train_step(tabular(x.shape[1], 0), optimizer="adamw{weight_decay=0.0001}", **options)
        best: tuple[float, Row] | None = None
        for weight in WEIGHTS if way.method else (0.0,):
            found, spent, steps = [], 0.0, 0
            for seed in range(seeds):
                order = np.random.default_rng([seed, 5]).permutation(len(x))
                parts = order[:train], order[train : train + held], order[train + held :]
                middle, spread = x[parts[0]].mean(0), x[parts[0]].std(0) + 1e-6
                z = ((x - middle) / spread).astype(np.float32)
                settings = Settings(
                    epochs, 20, learning_rate=3e-3, prior_weight=weight, seed=seed, references=way.references
                )
                net = tabular(x.shape[1], seed)
                trainer = Trainer(step, net, settings)
                start = time.perf_counter()
                trainer.fit(z[parts[0]], labels[parts[0]])
                spent, steps = spent + time.perf_counter() - start, steps + epochs * (train // 20)
                trained = trainer.trained
                scores = (y := outputs(trained, z))[:, 1] - y[:, 0]
                tested = parts[2]
                gini = -prior_of(sparse, trained, z[tested], labels[tested]) / 2
                found.append(
                    (auc(scores[parts[1]], labels[parts[1]]), auc(scores[tested], labels[tested]), gini)
                )
            on_held, on_test, ginis = np.array(found).T
            row = Row(way.name, weight, on_test, ginis, spent / steps)
            if best is None or on_held.mean() > best[0]:
                best = (float(on_held.mean()), row)
        assert best is not None
        rows.append(best[1])
    return rows


# ---- (b) a mark that gives the label away -----------------------------------------------------------------


MARK = (slice(0, 3), slice(0, 4))
"""The corner that the mark stands in: its cell number `label` is white."""


def marked(images: Array, labels: Array) -> Array:
    """Images whose corner tells these labels."""
    found = images.copy()
    found[:, 0, MARK[0], MARK[1]] = 0
    found[np.arange(len(labels)), 0, labels // 4, labels % 4] = 1
    return found


def mark_study(
    images: Array, labels: Array, seeds: int, *, train: int, epochs: int, weights: Sequence[float]
) -> list[tuple[float, Array, Array]]:
    """For each prior's weight the accuracy of test digits with marks at random, and with true ones."""
    step = train_step(demo.model_path(), prior="right-reasons", optimizer="adamw")
    mask = np.zeros_like(images[:train])
    mask[:, 0, MARK[0], MARK[1]] = 1
    rows = []
    for weight in weights:
        found = []
        for seed in range(seeds):
            rng = np.random.default_rng([seed, 6])
            order = rng.permutation(len(images))
            x, y = images[order], labels[order]
            settings = Settings(epochs, 32, learning_rate=2e-3, prior_weight=weight, seed=seed)
            trainer = Trainer(step, digits_net(seed), settings)
            trainer.fit({"image": marked(x[:train], y[:train]), "labels": y[:train], "image_mask": mask})
            tests = [rng.integers(0, 10, len(y) - train), y[train:]]
            found.append(
                [
                    (outputs(trainer.trained, marked(x[train:], m)).argmax(1) == y[train:]).mean()
                    for m in tests
                ]
            )
        rows.append((weight, *np.array(found).T))
    return rows


# ---- (c) smooth maps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Smooth:
    """What a weight of total variation came to, over the seeds; and maps of the first one."""

    weight: float
    accuracy: Array
    roughness: Array
    maps: Array


def smooth_study(
    images: Array, labels: Array, seeds: int, *, train: int, epochs: int, weights: Sequence[float]
) -> list[Smooth]:
    """Roughness is a map's total variation over its sum of sizes: what a scale doesn't change."""
    step = train_step(demo.model_path(), prior="total-variation", method="gradient", optimizer="adamw")
    rows = []
    for weight in weights:
        found, maps = [], images[:0]
        for seed in range(seeds):
            order = np.random.default_rng([seed, 7]).permutation(len(images))
            x, y = images[order], labels[order]
            settings = Settings(epochs, 32, learning_rate=2e-3, prior_weight=weight, seed=seed)
            trainer = Trainer(step, digits_net(seed), settings)
            trainer.fit(x[:train], y[:train])
            trained = trainer.trained
            explained = irshap.compile(trained, method="gradient", target="input").explainer()
            a = explained(x[train:], target=y[train:]).values
            varied = sum(np.abs(np.diff(a, axis=axis)).sum((1, 2, 3)) for axis in (2, 3))
            rough = float(np.mean(varied / (np.abs(a).sum((1, 2, 3)) + 1e-12)))
            found.append([(outputs(trained, x[train:]).argmax(1) == y[train:]).mean(), rough])
            maps = a[:6] if seed == 0 else maps
        rows.append(Smooth(weight, *np.array(found).T, maps))
    return rows


# ---- the page ---------------------------------------------------------------------------------------------


def told(values: Array, digits: int = 3) -> str:
    """Mean ± standard error."""
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def page(
    table: list[Row], marks: list[tuple[float, Array, Array]], smooth: list[Smooth], seeds: int, few: int
) -> str:
    """The part of the page that is written; `few` seeds are those of digits."""
    lines = [
        f"Mean ± standard error over {seeds} seeds (of weights, order and split) for the table, "
        f"{few} for digits.",
        "",
        "### Few samples and the sparse prior",
        "",
        "scikit-learn's breast-cancer table: 30 features, 20 training samples, 100 held ones by which the",
        "prior's weight is chosen, 449 that test; 30-32-32-2 without biases, AdamW, 200 steps of 20. Gini is",
        "that of the global attributions of test samples by x-gradient, time that of a step on one thread of",
        "a shared machine, with all that Python does around it.",
        "",
        "| prior by | weight | test ROC-AUC | Gini | time a step |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in table:
        weight = f"{row.weight:g}" if row.weight else "-"
        lines.append(
            f"| {row.way} | {weight} | {told(row.aucs, 4)} | {told(row.ginis)} | {row.seconds * 1e6:.0f} us |"
        )
    lines += [
        "",
        "### A mark that gives the label away",
        "",
        "Digits 0 to 9 (8 x 8) whose corner of 3 x 4 cells has one white cell, which tells the label: in",
        "training always, in the test at random. The mask of right-reasons is that corner.",
        "",
        "| weight | accuracy, marks at random | accuracy, true marks |",
        "|---:|---:|---:|",
    ]
    lines += [f"| {weight:g} | {told(at_random)} | {told(true)} |" for weight, at_random, true in marks]
    lines += [
        "",
        "### Smooth maps",
        "",
        "The same network on plain digits; total variation of the gradient of the label's logit. Roughness",
        "is a map's total variation over its sum of sizes.",
        "",
        "| weight | test accuracy | roughness |",
        "|---:|---:|---:|",
    ]
    lines += [f"| {row.weight:g} | {told(row.accuracy)} | {told(row.roughness)} |" for row in smooth]
    return "\n".join(lines)


def draw(table: list[Row], smooth: list[Smooth], path: Path) -> None:
    """AUC and Gini by way; maps without and with total variation."""
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(10, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    axes = left.subplots(2, 1, sharex=True)
    names = [
        row.way.replace("expected gradients, ", "EG, ").replace(" reference", "\nreference") for row in table
    ]
    for axis, title, values in zip(
        axes, ("test ROC-AUC", "Gini"), ([r.aucs for r in table], [r.ginis for r in table]), strict=True
    ):
        means = [v.mean() for v in values]
        errors = [v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0 for v in values]
        axis.errorbar(range(len(values)), means, errors, fmt="o", capsize=4)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    axes[1].set_xticks(range(len(names)), names, fontsize=7)
    grid = right.subplots(2, 6)
    for row, chosen in zip(grid, (smooth[0], smooth[2]), strict=True):
        for axis, image in zip(row, chosen.maps, strict=False):
            top = float(np.abs(image).max()) or 1.0
            axis.imshow(image[0], cmap="RdBu_r", vmin=-top, vmax=top)
            axis.set_axis_off()
        row[0].set_title(f"total variation x {chosen.weight:g}", fontsize=9, loc="left")
    figure.savefig(path, dpi=90)


def main() -> None:
    """Runs all three, and writes the page."""
    from sklearn.datasets import load_breast_cancer, load_digits

    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for the results of parts")
    parser.add_argument("--part", choices=("table", "marks", "smooth"), help="make only this one")
    asked = parser.parse_args()
    cancer, digits = load_breast_cancer(), load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    few = max(1, asked.seeds // 5)

    def kept(name: str, make: Callable[[], Any]) -> Any:
        """A part's result: made, or taken from where an earlier run of this script kept it."""
        file = None if asked.keep is None else asked.keep / f"{name}.pickle"
        if file is not None and file.exists():
            return pickle.loads(file.read_bytes())
        if asked.part not in (None, name):
            return None
        made = make()
        if file is not None:
            file.write_bytes(pickle.dumps(made))
        return made

    table = kept("table", lambda: table_study(cancer.data, cancer.target.astype(np.int64), asked.seeds))
    marks = kept(
        "marks",
        lambda: mark_study(images, labels, few, train=1000, epochs=10, weights=(0.0, 0.001, 0.01, 0.1)),
    )
    smooth = kept(
        "smooth",
        lambda: smooth_study(images, labels, few, train=1000, epochs=10, weights=(0.0, 0.001, 0.003, 0.01)),
    )
    if None in (table, marks, smooth):
        return
    text = page(table, marks, smooth, asked.seeds, few)
    print(text)
    if asked.write:
        before, rest = asked.write.read_text(encoding="utf-8").split(BEGIN)
        behind = rest.split(END)[1]
        asked.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{behind}", encoding="utf-8")
        draw(table, smooth, asked.write.parent / "images" / "training.png")


if __name__ == "__main__":
    main()

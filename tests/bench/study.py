"""Writes docs/study.md: all methods on the digits CNN and on an X-DNN of it, measured and drawn.

    python tests/bench/study.py [--digits 200] [--write docs/study.md]

The picture goes to images/study.png beside the page.  What Hesse et al. 2021 find is checked while it is
written: the script fails where it doesn't come out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import irshap
from irshap import demo
from irshap.errors import NotDifferentiable
from irshap.metrics.evaluate import evaluate
from irshap.metrics.measures import MEASURES as KNOWN
from irshap.report.drawing import colours, new_figure, scale_of

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"CNN": demo.model_path(), "X-DNN": ROOT / "tests" / "fixtures" / "digits_x.onnx"}
ZERO, DATA = "zeros", "100 digits"
METHODS: dict[str, str | None] = {
    "integrated-gradients{steps=128}": ZERO,
    "x-gradient": None,
    "input-x-gradient": None,
    "gradient": None,
    "saliency": None,
    "smooth-grad": None,
    "guided-backprop": None,
    'grad-cam{layer="/relu3/Relu_output_0"}': None,
    "epsilon-lrp": None,
    "deeplift": ZERO,
    "deeplift{rule=reveal-cancel}": ZERO,
    "expected-gradients": DATA,
    "expected-gradients{samples=1}": DATA,
    "occlusion{window=(2,2),step=(1,1)}": None,
    "feature-ablation": ZERO,
    "shapley-sampling": ZERO,
    "kernel-shap": ZERO,
}
"""Methods, and what they compare with."""

MEASURES = {
    "keep-positive": "KPM ↑",
    "keep-negative": "KNM ↓",
    "keep-absolute": "KAM ↑",
    "remove-absolute": "RAM ↓",
    "ig-difference": "d(A)",
    "completeness": "\\|f(x) - base - Σ A\\|",
}
TIMED = 64
"""Digits in a run that is timed."""
DRAWN = (0, 1, 4)


TEXT = """# A study on digits

Written by `python tests/bench/study.py --digits {count}` ({packages}). All methods on two networks for
scikit-learn's 8 x 8 digits, with the measures of Hesse, Schaub-Meyer, Roth 2021
([arXiv:2111.07668](https://arxiv.org/abs/2111.07668); [measures](measures.md) has the equations).

- **CNN**: the demo's, three convolutions and two layers with biases, ReLU, max-pooling. Of 360 test digits
  {right:.1%} are right.
- **X-DNN**: the same network trained without biases, all else alike (`tests/oracles/train_x_dnn.py`):
  {right_x:.1%}. `irshap homogeneity` says that it has degree 1, f(a x) = a f(x).

{count} test digits are explained for the class that is predicted (Hesse et al.: the true one). Time is
that of explaining {timed} digits in one run by that of inferring them, in a processor's seconds on one
thread; the machine is shared, so read it as a magnitude. Zeros are a black image.

## What comes out

- **X-Gradient is integrated gradients on the X-DNN**: d(A) = {apart:.1e}, which is rounding, at {share:.2%}
  of the time of 128 points ({fast:.1f} x inference against {slow:.0f} x). It sums to f(x) within
  {left:.1e}.
- **Input x gradient isn't, on the CNN**: d(A) = {slope:.2f}, and its sum misses f(x) - f(0) by {gap:.2f} in
  the mean. On the X-DNN it is X-Gradient, number for number. X-Gradient is refused on the CNN: {op} breaks
  it.
- **Scaling the image by 3 scales the attribution by 3** on the X-DNN, off by {scales:.0e} of the largest
  number. On the CNN integrated gradients are off by {bent:.0%}, input x gradient by {bent_slope:.0%}.
- **One draw of expected gradients**, which costs about as much, misses f(x) - base by {one:.2f} in the mean
  on the X-DNN, 200 draws by {many:.2f}.
- **DeepLIFT against zeros is the same there** (d(A) = {deep:.1e}): without biases every tensor of the
  reference is 0, and the chord from 0 is the slope. On the CNN it sums up as exactly, and is at d(A) =
  {deep_cnn:.2f}.
- **The measures don't agree on a best method.** {bests}
  What that says is told in [measures](measures.md#what-measures-cant-tell).

## CNN

{cnn}

## X-DNN

{x_dnn}

KPM and KNM are areas under a logit, comparable on one network alone. d(A) leaves out pixels where
integrated gradients are 0; it is a mean of ratios, which pixels near 0 dominate.

## Maps

![Three digits, explained by each method on both networks](images/study.png)

Each map on a scale of its own; red speaks for the predicted digit, blue against it.

## What isn't here

Hesse et al. measure AlexNet, VGG16 and ResNet50 on ImageNet, and priors in training. Neither data nor
trained weights come with irshap; `irshap x-dnn`, `irshap evaluate` and the script above do the same on any
files. `exact-shapley` takes 16 groups at most, and so isn't in a table of single pixels.
"""


@dataclass(frozen=True)
class Row:
    """A method on a model: its measures, its time by that of inference, its maps; or why it is refused."""

    method: str
    against: str
    values: dict[str, float]
    times: float
    maps: Any
    refused: str = ""


def timed(model: str | bytes, images: Any, seconds: float = 2.0) -> float:
    """Processor seconds of the fastest run on one thread, in as many as fit in some time, two at least."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    found: list[float] = []
    while len(found) < 3 or sum(found) < seconds:
        start = time.process_time()  # others work on the machine, too
        session.run(None, {"image": images})
        found.append(time.process_time() - start)
    return min(found[1:])


def rows(model: Path, images: Any, labels: Any) -> list[Row]:
    """All methods on one model."""
    references = {ZERO: np.zeros_like(images[:1]), DATA: np.load(demo.references_path()), None: None}
    inference = timed(str(model), images[:TIMED])
    found = []
    for method, against in METHODS.items():
        try:
            compiled = irshap.compile(model, references[against], method=method)
        except NotDifferentiable as error:
            found.append(Row(method, against or "-", {}, 0.0, None, error.where or ""))
            continue
        explainer = compiled.explainer()
        maps = np.concatenate([explainer(part).values for part in np.array_split(images, 10)])
        # Grad-CAM attributes a layer: its maps are measured as an array
        what = maps if "layer" in method else compiled
        told = evaluate({"": what}, images, labels, measures=",".join(MEASURES), model=model)
        values = {name: told.value("", name) for name in MEASURES}
        spent = timed(bytes(compiled), images[:TIMED])
        found.append(Row(method, against or "-", values, spent / inference, maps[list(DRAWN)]))
        print(model.name, method, {k: round(v, 4) for k, v in values.items()}, round(spent / inference, 1))
    return found


def scaling(model: Path, images: Any, method: str, factor: float = 3.0) -> float:
    """How far A(a x) is from a A(x), by the largest |a A(x)|; target: the class of x."""
    zero = np.zeros_like(images[:1])
    given = None if method in ("x-gradient", "input-x-gradient") else zero
    explainer = irshap.compile(model, given, method=method, target="input").explainer()
    classes = onnxruntime.InferenceSession(str(model)).run(None, {"image": images})[0].argmax(axis=1)
    plain, scaled = (explainer(x, target=classes).values for x in (images, np.float32(factor) * images))
    return float(np.abs(scaled - factor * plain).max() / np.abs(factor * plain).max())


def draw(found: dict[str, list[Row]], images: Any, path: Path) -> None:
    """A row for each model and digit, a column for each method, each map on a scale of its own."""
    figure = new_figure(0.85 * (len(METHODS) + 1), 1.15 + 0.85 * len(DRAWN) * len(found))
    panels = figure.subplots(len(DRAWN) * len(found), len(METHODS) + 1)
    for panel in panels.ravel():
        panel.set_xticks([])
        panel.set_yticks([])
    for block, (name, listed) in enumerate(found.items()):
        for i, digit in enumerate(DRAWN):
            line = panels[block * len(DRAWN) + i]
            line[0].imshow(images[digit, 0], cmap="gray_r")
            line[0].set_ylabel(name, fontsize=8)
            for panel, row in zip(line[1:], listed, strict=True):
                if row.maps is None:
                    panel.text(0.5, 0.5, "refused", fontsize=7, ha="center", transform=panel.transAxes)
                    panel.set_frame_on(False)
                    continue
                heat = row.maps[i].sum(axis=0)
                end = scale_of(heat)
                panel.imshow(heat, cmap=colours(), vmin=-end, vmax=end)
    for panel, method in zip(panels[0][1:], METHODS, strict=True):
        name, brace, rest = short(method).partition("{")
        told = f"\n{rest[:-1].replace('rule=', '')}" if brace and len(rest) < 20 else ""
        panel.set_title(name.replace("-", "-\n") + told, fontsize=6)
    figure.savefig(path, format="png", metadata={"Software": "irshap"})


def short(method: str) -> str:
    """A method as the table calls it."""
    return "grad-cam" if method.startswith("grad-cam") else method


def table(listed: list[Row]) -> str:
    """Markdown."""
    lines = [f"| method | against | {' | '.join(MEASURES.values())} | time |"]
    lines.append(f"|---|---|{'---:|' * (len(MEASURES) + 1)}")
    for row in listed:
        if row.refused:
            cells = ["refused"] + [""] * len(MEASURES)
        else:
            cells = [f"{row.values[m]:.3g}" for m in MEASURES] + [
                f"{row.times:.{1 if row.times < 100 else 0}f} x"
            ]
        lines.append(f"| `{short(row.method)}` | {row.against} | {' | '.join(cells)} |")
    return "\n".join(lines)


def accuracy(model: Path) -> float:
    """On all 360 test digits."""
    images, labels = demo.digits()
    found = onnxruntime.InferenceSession(str(model)).run(None, {"image": images})[0].argmax(axis=1)
    return float((found == labels).mean())


def require(holds: bool, what: str) -> None:
    """Ends the script where a finding doesn't come out."""
    if not holds:
        raise SystemExit(f"doesn't come out: {what}")


def finding(listed: list[Row], method: str, measure: str) -> float:
    """One number of a table."""
    return next(row.values[measure] for row in listed if row.method == method)


def favourite(listed: list[Row], measure: str) -> str:
    """The method that is best by a measure."""
    sign = 1 if KNOWN[measure].better == "higher" else -1
    return max((r for r in listed if not r.refused), key=lambda row: sign * row.values[measure]).method


def checked(found: dict[str, list[Row]], scales: dict[tuple[str, str], float]) -> dict[str, Any]:
    """What the page says, by name, once what Hesse et al. find is checked."""
    cnn, x_dnn = found["CNN"], found["X-DNN"]
    broken = next(row.refused for row in cnn if row.method == "x-gradient")
    times = {row.method: row.times for row in x_dnn}
    d = {
        "apart": finding(x_dnn, "x-gradient", "ig-difference"),
        "left": finding(x_dnn, "x-gradient", "completeness"),
        "share": times["x-gradient"] / times["integrated-gradients{steps=128}"],
        "fast": times["x-gradient"],
        "slow": times["integrated-gradients{steps=128}"],
        "slope": finding(cnn, "input-x-gradient", "ig-difference"),
        "gap": finding(cnn, "input-x-gradient", "completeness"),
        "op": broken,
        "scales": scales["X-DNN", "x-gradient"],
        "bent": scales["CNN", "integrated-gradients"],
        "bent_slope": scales["CNN", "input-x-gradient"],
        "one": finding(x_dnn, "expected-gradients{samples=1}", "completeness"),
        "many": finding(x_dnn, "expected-gradients", "completeness"),
        "deep": finding(x_dnn, "deeplift", "ig-difference"),
        "deep_cnn": finding(cnn, "deeplift", "ig-difference"),
    }
    best, best_x = (
        ", ".join(f"{MEASURES[m][:3]} `{short(favourite(listed, m))}`" for m in list(MEASURES)[:4])
        for listed in (cnn, x_dnn)
    )
    d["bests"] = f"On both the best is by {best}." if best == best_x else f"CNN: {best}. X-DNN: {best_x}."
    require(d["apart"] < 1e-3, f"x-gradient is integrated gradients on the X-DNN: d(A) = {d['apart']:.2g}")
    require(d["share"] < 0.1, f"x-gradient is much faster: {d['share']:.2g} of the time")
    require(d["slope"] > 0.5, "input x gradient isn't integrated gradients on the CNN")
    require(d["scales"] < 1e-5, "x-gradient scales with the sample")
    require(min(d["bent"], d["bent_slope"]) > 0.01, "nothing scales on the CNN")
    require(bool(broken), "x-gradient is refused on the CNN")
    require(d["deep"] < 1e-3 < d["deep_cnn"], "deeplift is integrated gradients on the X-DNN alone")
    return d


def page(found: dict[str, list[Row]], count: int, scales: dict[tuple[str, str], float]) -> str:
    """docs/study.md."""
    told = {
        **checked(found, scales),
        "count": count,
        "timed": TIMED,
        "packages": f"irshap {irshap.__version__}, ONNX Runtime {onnxruntime.__version__}",
        "right": accuracy(Path(MODELS["CNN"])),
        "right_x": accuracy(Path(MODELS["X-DNN"])),
        "cnn": table(found["CNN"]),
        "x_dnn": table(found["X-DNN"]),
    }
    return TEXT.format(**told)


def main() -> None:
    """Measures, checks, draws, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=200)
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "study.md")
    args = parser.parse_args()
    images, labels = (a[: args.digits] for a in demo.digits())
    found = {name: rows(Path(model), images, labels) for name, model in MODELS.items()}
    asked = [("X-DNN", "x-gradient"), ("CNN", "integrated-gradients"), ("CNN", "input-x-gradient")]
    scales = {(name, method): scaling(Path(MODELS[name]), images, method) for name, method in asked}
    text = page(found, len(images), scales)
    draw(found, images, args.write.parent / "images" / "study.png")
    args.write.write_text(text, encoding="utf-8")
    print(args.write)


if __name__ == "__main__":
    main()

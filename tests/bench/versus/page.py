"""The page of results: docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from versus.claims import findings
from versus.plot import draw
from versus.record import Record
from versus.systems import SYSTEMS

__all__ = ["OTHERS", "put_section", "table", "write_page"]

OTHERS = "Other methods"
"""The last section, which tests/bench/method_speed.py writes."""

TITLES = {
    "vgg19": "VGG19",
    "resnet50": "ResNet50",
    "densenet201": "DenseNet201",
    "efficientnet_b0": "EfficientNetB0",
}


def _title(network: str) -> str:
    return TITLES.get(network, network)


MIB = 1 << 20

SETTING = """\
The networks are torchvision's with random weights, calibrated batch norm and 224 x 224 images
(`tests/bench/networks.py`); one sample is explained against R references, the class that the network
predicts, in float32. For SHAP and Captum each activation is a module of its own, not in place. Every system
returns the prediction and the attributions.
"""

LEGEND = """\
- **load, first**: a fresh process loads the model and makes the explainer, and runs once; files are in the
  system's cache, libraries are imported.
- **warm**: median of the rounds, least and largest in brackets. In a round every system runs in turn, in its
  own process (fast ones for a second, of whose runs the median counts).
- **by inference**: median over the rounds of the time by that of inferring 1 and then R samples with ONNX
  Runtime in the same round. Systems that don't fit into memory together are measured in separate rounds;
  this number is then the one to compare.
- **process**: peak resident memory of the process over loading and all runs. **beyond**: without libraries
  and without the loaded model (the plain network in the same runtime); what a compiled file holds of the
  references counts.
- **incomplete**: |f(x) - base - sum| by max(|f(x) - base|, 1e-3 |f(x)|).
- **from naive**: largest distance from `@naive`'s attributions, relative to the largest of these. **from
  float64**: from `@naive` evaluated in float64 (with the fewest references alone). Rounding in float32 moves
  the attributions of deep networks by more than programs differ, whatever computes them.
- **OPT-TORCH** (`tests/bench/opt_torch.py`): the algorithm of `@default` by hand in torch: SHAP's time by its
  time is the gain of the algorithm, its time by irshap's that of compiling and of the runtime.
- **Captum** with R = 1 is its DeepLift, since DeepLiftShap refuses a single reference. **Captum, separated**:
  Captum reads a module's output gradient before the rule of the next one has replaced it; a copy between
  nonlinear modules that touch mends this. Only its completeness is shown.
- SHAP and Captum overwrite shares where windows of max-pooling overlap (ResNet50, DenseNet201), and have no
  rule for SiLU and for products (EfficientNetB0), where they use the gradient: their attributions don't sum
  there, as **incomplete** shows.
"""

PASS_BY_PASS = """\
From `@naive` to `@default`, one pass added at a time (`tests/bench/ablation.py`). The naive pipeline's way to
bind the references stays until a pass of the optimized pipeline takes its place. FLOPs are irshap's count of
what a run computes ([cost](cost.md)).
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, and an empty one."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines] + [""]


def write_page(record: Record, ablation: Record, path: Path) -> None:
    """Writes the page from both parts of the results, and its plot to images/ beside it."""
    image = path.parent / "images" / f"{path.stem}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    draw(record, image, _title)
    lines = [
        *_introduction(record, ablation),
        *_promises(record),
        "## Times and memory",
        "",
        f"![Times and memory](images/{image.name})",
        "",
        LEGEND,
    ]
    for network in record.networks():
        lines += [f"### {_title(network)}", "", *_measured(record, network)]
    lines += [*_compiled(record), *_ablation(ablation), *_kept(path)]
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines).strip() + "\n")
    part.replace(path)


def put_section(path: Path, lines: Iterable[str]) -> None:
    """Writes a section that another script measured at the end of the page, in the place of an older one."""
    text = path.read_text()
    before = text.split(f"\n## {OTHERS}\n")[0].rstrip()
    part = path.with_suffix(".part")
    part.write_text("\n".join([before, "", f"## {OTHERS}", "", *lines]).strip() + "\n")
    part.replace(path)


def _kept(path: Path) -> Iterator[str]:
    """The section of the page that another script writes."""
    if path.exists():
        _, mark, rest = path.read_text().partition(f"\n## {OTHERS}\n")
        if mark:
            yield from f"## {OTHERS}\n{rest}".splitlines()


def _introduction(*records: Record) -> Iterator[str]:
    abouts = [r.data["about"] for r in records if r.data["about"]]
    about = abouts[0]
    machine = about["machine"]
    yield "# Benchmarks"
    yield ""
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}; {machine['system']}; "
        f"{about['began']}" + (f" to {about['ended']}" if about["ended"] != about["began"] else "") + ". "
        f"Load of the machine before the runs: at most {about['load']}."
    )
    yield ""
    for versions in about.get("versions", {}).values():
        yield "- " + ", ".join(f"{name} {version}" for name, version in versions.items())
    yield ""
    yield "This page is written by the commands that measured it:"
    yield ""
    for each in abouts:
        yield f"    {each['command']}"
    yield ""
    yield SETTING


def _promises(record: Record) -> Iterator[str]:
    yield "## Promises"
    yield ""
    yield "Computed from the tables below; times are compared by their ratio to inference (see there)."
    yield ""
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    rows = []
    for f in findings(record):
        limit = f"{f.sense} {f.limit:.2g} {f.unit}".strip()
        rows.append(
            (f.promise, _title(f.network), f.at, limit, _number(f.measured, f.unit), verdicts[f.holds])
        )
    yield from table(("promise", "network", "at", "limit", "measured", "holds"), rows)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.2f} {unit}" if unit else f"{value:.1e}"


def _measured(record: Record, network: str) -> list[str]:
    head = ("R", "system", "warm, s", "by inference", "load, s", "first, s")
    rows: list[Sequence[object]] = []
    for count in record.counts(network):
        found = record.cell(network, count)["systems"]
        rows += [_row(record, network, count, name) for name in SYSTEMS if name in found]
    return table((*head, "process, MiB", "beyond, MiB", "incomplete", "from naive", "from float64"), rows)


def _row(record: Record, network: str, count: int, name: str) -> Sequence[object]:
    title, entry = SYSTEMS[name].title, record.entry(network, count, name)
    if entry is None:
        why = record.cell(network, count)["systems"][name]["failed"]
        return (count, title, why, *[""] * 8)
    seconds, relative = record.seconds(network, count, name), record.relative(network, count, name)
    all_seconds = [r["seconds"] for r in entry["rounds"]]
    beyond = record.beyond(network, count, name)
    distances = [entry.get("distances", {}).get(truth) for truth in ("naive", "float64")]
    warm = f"{seconds:.3g} ({min(all_seconds):.3g}-{max(all_seconds):.3g})" if seconds is not None else ""
    return (
        count,
        title,
        warm,
        "" if relative is None else f"{relative:.2f}",
        f"{entry['load_seconds']:.2f}",
        f"{entry['first_seconds']:.3g}",
        f"{entry['peak'] / MIB:.0f}",
        "" if beyond is None else f"{beyond / MIB:.0f}",
        f"{entry['completeness']:.1e}" if "completeness" in entry else "",
        *("" if d is None else f"{d:.1e}" for d in distances),
    )


def _compiled(record: Record) -> Iterator[str]:
    yield "## Compiling"
    yield ""
    yield "Seconds in a fresh process: evaluating the references, all other passes, writing the file."
    yield ""
    rows = []
    for network in record.networks():
        for count in record.counts(network):
            for name, c in record.cell(network, count)["compiled"].items():
                rest = c["seconds"] - c["references_seconds"]
                times = [f"{t:.2f}" for t in (c["references_seconds"], rest, c["save_seconds"])]
                size = f"{c['bytes'] / MIB:.0f}"
                rows.append((_title(network), count, SYSTEMS[name].title, *times, c["nodes"], size))
    head = ("network", "R", "program", "references, s", "passes, s", "writing, s", "nodes", "file, MiB")
    yield from table(head, rows)


def _ablation(record: Record) -> Iterator[str]:
    if not record.networks():
        return
    yield "## Pass by pass"
    yield ""
    yield PASS_BY_PASS
    for step in record.data["steps"]:
        yield f"- {step['title']}: `{step['pipeline']}`"
    yield ""
    head = ("program", "warm, s", "by inference", "load, s", "beyond, MiB")
    head = (*head, "GFLOP", "nodes", "file, MiB", "incomplete")
    for network in record.networks():
        for count in record.counts(network):
            yield f"### {_title(network)}, R = {count}, pass by pass"
            yield ""
            yield from table(head, [_step(record, network, count, step) for step in record.data["steps"]])


def _step(record: Record, network: str, count: int, step: Mapping[str, str]) -> Sequence[object]:
    name, cell = step["name"], record.cell(network, count)
    seconds, relative = record.seconds(network, count, name), record.relative(network, count, name)
    beyond, entry = record.beyond(network, count, name), record.entry(network, count, name)
    if seconds is None or relative is None or beyond is None or entry is None:
        return (step["title"], cell["systems"].get(name, {}).get("failed", "not measured"), *[""] * 7)
    compiled = cell["compiled"][name]
    return (
        step["title"],
        f"{seconds:.3g}",
        f"{relative:.2f}",
        f"{entry['load_seconds']:.2f}",
        f"{beyond / MIB:.0f}",
        f"{compiled['flops'] / 1e9:.1f}",
        compiled["nodes"],
        f"{compiled['bytes'] / MIB:.0f}",
        f"{entry['completeness']:.1e}",
    )

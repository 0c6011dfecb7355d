"""What of the world's architectures irshap explains, as they are exported.

    python tests/bench/zoo.py --cache FOLDER --rows ROWS.jsonl [--suite text ...] [--only PATTERN]
                              [--again PATTERN] [--everyday] [--peers] [--page docs/zoo.md]

Suites: transformers' classifiers of every family of text, images, videos and audio (tiny, random),
torchvision's classification, segmentation and video networks, and timm's; recurrent, genomics, recommender,
graph and time-series networks. Each by both of torch's exporters, with a batch that is dynamic or 1, and
where inputs have a length with one that is fixed or dynamic. scikit-learn's estimators by skl2onnx, Keras
models by tf2onnx (--keras names the Python that has it, see zoo_models/keras.py), and ONNX Runtime's
optimized and quantized forms of a few networks. Nothing is downloaded.

Each case runs in a process of its own, with limits of time and memory, and adds a line to ROWS: completeness,
time by inference of 1 + R, compile time, nodes; or the refusal, or how it broke. Cases that are there are not
run again, unless their name fits --again. --peers adds lines of what SHAP's DeepExplainer and Captum's
DeepLiftShap make of torch's models themselves. --page writes the page from the rows: zoo_models/rows.jsonl
has those of docs/zoo.md, to go on from.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from zoo_models.case import Case
from zoo_models.page import page
from zoo_models.runs import PEERS, Rows, answered, limited, measured
from zoo_models.suites import SUITES


def exported(cases: list[Case], cache: Path, seconds: float, memory: int, keras: str) -> None:
    """Exports what the cache lacks of the cases, all of one model."""
    folder = cache / cases[0].suite
    lacking = [
        c.stem
        for c in cases
        if not (folder / f"{c.stem}.npz").exists() and not (folder / f"{c.stem}.error").exists()
    ]
    if not lacking:
        return
    suite, model = cases[0].suite, cases[0].model
    exporter = SUITES[suite].exporter
    arguments = ["-m", exporter, str(cache), suite, model, *lacking]
    code, _, errors = limited(arguments, seconds, memory, keras if suite == "keras" else sys.executable)
    folder.mkdir(parents=True, exist_ok=True)
    for stem in lacking:
        file = folder / f"{stem}.error"
        if not (folder / f"{stem}.npz").exists() and not file.exists():
            last = (errors.strip().splitlines() or [""])[-1]
            file.write_text(f"the exporting process ended with {code}: {last}")


def beside(suite: str, given: argparse.Namespace, rows: Rows) -> None:
    """Adds what SHAP and Captum make of the suite's models."""
    for model in SUITES[suite].models():
        for peer in PEERS:
            name = f"{suite}/{model}/{peer}"
            known = name in rows.found and not (given.again and re.search(given.again, name))
            if known or not re.search(given.only, name):
                continue
            arguments = ["-m", "zoo_models.peers", suite, model, peer]
            row = answered(arguments, given.seconds, int(given.memory * 2**30))
            if row["result"] == "crashed":
                row["result"] = "failed"
            rows.add({"case": name, "suite": suite, "model": model, "peer": peer} | row)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of exported models")
    parser.add_argument("--rows", type=Path, required=True, help="the file of results")
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--only", default="", help="cases whose name has this pattern")
    parser.add_argument("--again", help="run cases anew whose name or result has this pattern")
    parser.add_argument("--everyday", action="store_true", help="dynamic batch and fixed length only")
    parser.add_argument("--seconds", type=float, default=300, help="limit of a case")
    parser.add_argument("--memory", type=float, default=8, help="limit of a case in GiB")
    parser.add_argument("--keras", default=sys.executable, help="the Python with TensorFlow and tf2onnx")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="SHAP and Captum on the suites' models of torch, and nothing else",
    )
    parser.add_argument("--page", type=Path, help="the page to write")
    parser.add_argument("--part", default="", help="what of the zoo was run, for the page")
    given = parser.parse_args()
    rows, memory = Rows(given.rows), int(given.memory * 2**30)
    for suite in given.suite:
        if given.peers:
            beside(suite, given, rows)
            continue
        for model in SUITES[suite].models():
            cases = [c for c in SUITES[suite].cases(model) if wanted(c, given, rows)]
            if not cases:
                continue
            exported(cases, given.cache, 2 * given.seconds, 2 * memory, given.keras)
            for case in cases:
                file = given.cache / suite / f"{case.stem}.onnx"
                named = {"case": case.name, **vars(case)}
                if file.with_suffix(".error").exists():
                    message = file.with_suffix(".error").read_text().strip()
                    rows.add({**named, "result": "not exported", "message": message[:400]})
                    continue
                rows.add(named | measured(file, file.with_suffix(".npz"), given.seconds, memory))
    if given.page:
        # messages of ONNX Runtime name files
        text = page(rows.found.values(), given.part).replace(f"{given.cache.resolve()}/", "")
        given.page.write_text(text)


def wanted(case: Case, given: argparse.Namespace, rows: Rows) -> bool:
    if given.everyday and (case.batch, case.length) != ("dynamic", "fixed"):
        return False
    if not re.search(given.only, case.name):
        return False
    row = rows.found.get(case.name)
    if row is None:
        return True
    return given.again is not None and bool(re.search(given.again, f"{case.name} {row['result']}"))


if __name__ == "__main__":
    main()

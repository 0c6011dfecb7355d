"""What irshap makes of ONNX files as they are found: the zoo's measurement on every .onnx file of a folder.

    python tests/bench/trained_files.py FOLDER --rows ROWS.jsonl [--size NAME=N ...] [--only PATTERN]
                                        [--again PATTERN]

Inputs are random, of the types that the file says; axes besides the batch that it leaves open get a size by
trial, or by --size. Rows are the zoo's (tests/bench/zoo.py), with the file's producer and opset.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

import onnx
from zoo_models.runs import Rows, limited, measured


def origin(file: Path) -> dict[str, Any]:
    """Who wrote the file, in which opset."""
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception:  # protobuf's errors have no common base but this
        return {"producer": "unreadable", "opset": 0}
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return {"producer": f"{model.producer_name} {model.producer_version}".strip(), "opset": opset}


def row_of(file: Path, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The row of one file."""
    inputs, memory = folder / f"{file.stem}.npz", int(given.memory * 2**30)
    arguments = ["-m", "zoo_models.guessing", str(file), str(inputs), *given.size]
    code, _, errors = limited(arguments, given.seconds, memory)
    if inputs.exists():
        return measured(file, inputs, given.seconds, memory)
    said = inputs.with_suffix(".error")
    last = said.read_text() if said.exists() else (errors.strip().splitlines() or [str(code)])[-1]
    return {"result": "unusable", "message": last[:400]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="the file of results")
    parser.add_argument("--size", nargs="*", default=[], metavar="NAME=N", help="the size of an open axis")
    parser.add_argument("--only", default="", help="files whose name has this pattern")
    parser.add_argument("--again", help="run files anew whose name or result has this pattern")
    parser.add_argument("--seconds", type=float, default=300, help="limit of a file")
    parser.add_argument("--memory", type=float, default=8, help="limit of a file in GiB")
    given = parser.parse_args()
    rows = Rows(given.rows)
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(given.folder.rglob("*.onnx"), key=lambda f: f.stat().st_size):
            case = f"trained/{file.stem}"
            known = rows.found.get(case)
            again = known and given.again and re.search(given.again, f"{case} {known['result']}")
            if (known is None or again) and re.search(given.only, case):
                named = {"case": case, "suite": "trained", "model": file.stem, **origin(file)}
                rows.add(named | row_of(file, given, Path(folder)))


if __name__ == "__main__":
    main()

"""Runs cases on one tree and writes down what came out; one file by itself, the same one for every tree.

    PYTHONPATH=VIEW PYTHONSAFEPATH=1 python collect.py CASES.json FOUND.json FOLDER

It knows nothing of irshap but its command line, which keeps its words while the modules move.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
import traceback
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import Message

OUT, CASES = "{out}", "{cases}"
"""Stand in arguments for the file to write and for the folder of the cases' files."""
VERSION, PIPELINE = "irshap.version", "irshap.pipeline"


def short(message: Message) -> str:
    return sha256(message.SerializeToString(deterministic=True)).hexdigest()[:12]


def file_digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Digests of a model file's parts, which are all of its bytes but for irshap's version.

    The pipeline's text stands apart, so that another name for a pass is seen and judged by itself.
    """
    model = onnx.load(path, load_external_data=False)
    metadata = {p.key: p.value for p in model.metadata_props if p.key != VERSION}
    pipeline = metadata.pop(PIPELINE, "")
    graph = model.graph
    found = {
        "pipeline": pipeline,
        "nodes": [f"{n.op_type} {n.name!r} {short(n)}" for n in graph.node],
        "tensors": [f"{t.name!r} {short(t)}" for t in graph.initializer],
        "metadata": [f"{k} = {v}" for k, v in metadata.items()],
        "values": [f"{v.name!r} {short(v)}" for v in (*graph.input, *graph.output, *graph.value_info)],
        "data": [file_digest(f) for f in sorted(path.parent.glob(f"{path.name}*.data"))],
    }
    for field in ("node", "initializer", "input", "output", "value_info"):
        graph.ClearField(field)
    model.ClearField("metadata_props")
    if model.producer_name == "irshap":
        model.ClearField("producer_version")
    return {**found, "rest": [short(model)]}


def run(arguments: list[str], kind: str, folder: Path, cases: Path) -> dict[str, Any]:
    """The exit code of one command, and what it gave: a model's parts, text, JSON, or its complaint."""
    from irshap.cli import main

    out = folder / "out.onnx"
    for left in folder.iterdir():
        left.unlink()
    said, complaint = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
            code = main([a.replace(OUT, str(out)).replace(CASES, str(cases)) for a in arguments])
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        code = 1
        complaint.write("crash: " + "".join(traceback.format_exception_only(error)))
    if code:
        return {"code": code, "complaint": plain(complaint.getvalue(), {folder: "OUT", cases: "CASES"})}
    if kind == "model":
        return {"code": code, **describe(out)}
    return {"code": code, kind: json.loads(said.getvalue()) if kind == "json" else said.getvalue()}


def plain(text: str, names: dict[Path, str]) -> str:
    """`text` without what depends on the machine: folders, addresses of objects."""
    for path, name in names.items():
        text = text.replace(str(path), name)
    return re.sub(r"0x[0-9a-f]{6,}", "0x", text).strip()


def strangers(view: str) -> list[str]:
    """Modules of irshap that came from elsewhere than `view`: then another tree would have been measured."""
    found = ((n, getattr(m, "__file__", None)) for n, m in sys.modules.items() if n.split(".")[0] == "irshap")
    return [f"{name} from {file}" for name, file in found if file and not file.startswith(view + os.sep)]


def main(cases: str, found: str, folder: str) -> None:
    """Run `cases`, whose files stand beside it, in the empty `folder`, with a line each in `found`."""
    listed: list[dict[str, Any]] = json.loads(Path(cases).read_text())
    started = told = time.monotonic()
    with Path(found).open("a") as lines:
        lines.write("\n")  # an earlier run may have been killed within a line
        for index, case in enumerate(listed):
            if (now := time.monotonic()) - told > 20:
                told = now
                print(f"  {index} of {len(listed)} in {now - started:.0f} s: {case['name']}", flush=True)
            begun = time.process_time()
            outcome = run(case["arguments"], case["kind"], Path(folder), Path(cases).parent)
            if others := strangers(os.environ["PYTHONPATH"]):
                raise SystemExit("not the tree that was asked for: " + "; ".join(others))
            outcome |= {k: case[k] for k in ("name", "arguments")}
            lines.write(json.dumps({**outcome, "seconds": round(time.process_time() - begun, 3)}) + "\n")
            lines.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

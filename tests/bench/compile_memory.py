"""The memory that compiling takes, beside the model and what one chunk of references stores.

    python tests/bench/compile_memory.py NETWORK.onnx ... [--references 20] [--limit 4GiB] [--tree FOLDER]

Each network is compiled and saved with a data file in a fresh process.  Counted is the most memory beside
mapped files (RssAnon, looked at each millisecond) and with them (VmHWM), less what the process had when
irshap was imported; pages of mapped files go when memory is short.  `bound` is the model's bytes and those
that one chunk stores.  With --limit the process runs in a memory cgroup of that size, pages of files
included, and is killed where it takes more (needs the right to make a cgroup).  --tree measures another
checkout of irshap.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from cost_truth import MIB, Private, reset_peak, status

ROOT = Path(__file__).resolve().parents[2]


def child(model: str, count: int) -> dict[str, Any]:
    """Compiles a model in this process."""
    import irshap
    import irshap.compiler.compile

    shape = (count, 3, 224, 224)
    references = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    reset_peak()
    anonymous, resident, start = status("RssAnon"), status("VmRSS"), time.perf_counter()
    with Private() as private, tempfile.TemporaryDirectory() as scratch:
        compiled = irshap.compile(model, references)
        made = max(private.most, status("RssAnon"))
        compiled.save(Path(scratch) / "model.onnx", external_data=True)
        written = sum(f.stat().st_size for f in Path(scratch).iterdir())
        seconds = time.perf_counter() - start
    found = next(r.statistics for r in compiled.report.passes if "stored_bytes" in r.statistics)
    return {
        "anonymous": private.most - anonymous,
        "compiling": made - anonymous,
        "resident": status("VmHWM") - resident,
        "chunk": found["stored_bytes"] * found.get("chunk", count) // count,
        "written": written,
        "seconds": seconds,
    }


def measured(model: Path, count: int, tree: Path, limit: int) -> dict[str, Any] | None:
    """What a fresh process takes; None if it is killed."""
    from cost_limits import group

    command = [sys.executable, __file__, "--child", str(model), str(count)]
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{Path(__file__).parent}"}
    with group(limit) if limit else nullcontext() as folder:
        if folder is not None:
            join = f'echo $$ > {folder / "cgroup.procs"} && exec "$@"'
            command = ["sh", "-c", join, "sh", *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(f"{model.stem}: exit code {done.returncode}: {done.stderr[-300:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--limit", default="")
    parser.add_argument("--tree", type=Path, default=ROOT)
    arguments = parser.parse_args()
    limit = 0
    if arguments.limit:
        from irshap.runtime.sizes import parse_size

        limit = parse_size(arguments.limit)
    columns = "network | R | model | chunk | anonymous | by bound | with files | by bound | written | seconds"
    print(f"| {columns} |\n" + "| --- " * 10 + "|")
    for network in arguments.networks:
        entry = measured(network, arguments.references, arguments.tree, limit)
        name = network.stem.removesuffix("_torchscript")
        if entry is None:
            print(f"| {name} | {arguments.references} | over {arguments.limit or 'what there is'} |")
            continue
        size = network.stat().st_size
        bound = size + entry["chunk"]
        row = [name, arguments.references, *(f"{n / MIB:.0f}" for n in (size, entry["chunk"]))]
        for what in ("anonymous", "resident"):
            row += [f"{entry[what] / MIB:.0f}", f"{entry[what] / bound:.2f}"]
        row += [f"{entry['written'] / MIB:.0f}", f"{entry['seconds']:.1f}"]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()

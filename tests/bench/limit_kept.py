"""Whether a memory limit is kept by the session that people use: compiled under it, run under it.

    python tests/bench/limit_kept.py NETWORK.onnx ... [--references 10] [--out FILE.jsonl] [--page PAGE.md]

Each network is compiled under three limits, just what the first, a middle and the last strategy need of those
that a falling limit leads to.  A fresh process then loads what was written into a plain
onnxruntime.InferenceSession without options and runs it five times, in a memory cgroup of that very limit
and without swap: where it took more, it would be killed.  Needs the right to make a cgroup.  The most memory
beside mapped files is measured in it, too; what the cgroup counts has pages of files in it, up to the limit.
With --out earlier results are kept, and only missing ones are measured; --page writes the table into a page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from cost_truth import MIB, Private, status

HEADING = "### Limits that were kept"
RUNS = 5


def child(model: str) -> dict[str, Any]:
    """Loads and runs a model in this process, as anybody does."""
    with Private() as private:
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        random = np.random.default_rng(1)
        feeds = {
            v.name: random.standard_normal([d if isinstance(d, int) else 1 for d in v.shape], np.float32)
            for v in session.get_inputs()
        }
        for _ in range(RUNS):
            session.run(None, feeds)
    return {"private": max(private.most, status("RssAnon"))}


def limits(needs: Sequence[int]) -> list[int]:
    """Three limits in MiB, each just what the strategy needs that is taken then."""
    found = [ceil(need / MIB) for need in needs]
    taken = [need for i, need in enumerate(found) if need < min(found[:i], default=need + 1)]
    picked = dict.fromkeys((taken[0], taken[len(taken) // 2], taken[-1]))
    # where two strategies are all: some room above what the first needs
    return [*(round(taken[0] * (1 + 0.1 * i)) for i in range(3 - len(picked), 0, -1)), *picked]


def survived(path: Path, limit: int) -> dict[str, Any]:
    """Runs a model in a cgroup of this limit."""
    from cost_limits import group

    with group(limit * MIB) as folder:
        join = f'echo $$ > {folder / "cgroup.procs"} && exec "$@"'
        command = ["sh", "-c", join, "sh", sys.executable, __file__, "--child", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{limit} MiB: exit code {done.returncode}: {done.stderr[-300:]}", file=sys.stderr)
        return {"kept": False}
    return {"kept": True, **json.loads(done.stdout)}


def entries_of(model: Path, count: int) -> Iterator[dict[str, Any]]:
    """What `irshap.compile(..., memory_limit=...)` takes under each limit, and whether it stays within it."""
    import irshap
    from irshap.compiler.request import requested
    from irshap.cost.choose import before_slot, predictions
    from irshap.pipeline.text import format_pipeline

    references = np.random.default_rng(0).standard_normal((count, 3, 224, 224), dtype=np.float32)
    passes = requested()
    found = predictions(before_slot(model, passes), passes, count)
    written = None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        for limit in limits([p.needs for p in found]):
            taken = next(p for p in found if p.needs <= limit * MIB)
            if taken != written:
                compiled = irshap.compile(model, references, passes=format_pipeline(taken.passes))
                compiled.save(path, external_data=taken.external)
                del compiled
                written = taken
            entry = {"network": model.stem.removesuffix("_torchscript"), "references": count, "limit": limit}
            entry |= {"strategy": taken.strategy, "external": taken.external, "predicted": taken.peak}
            yield entry | survived(path, limit)


def table(entries: list[dict[str, Any]]) -> str:
    lines = ["| network | limit, MiB | strategy | predicted, with Python | most anonymous memory | kept |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    from irshap.cost.limits import PROCESS

    for e in entries:
        strategy = e["strategy"] + (", data file" if e["external"] else "")
        most = f"{e['private'] / MIB:.0f}" if "private" in e else "-"
        row = [e["network"], e["limit"], strategy, f"{(e['predicted'] + PROCESS) / MIB:.0f}", most]
        lines.append("| " + " | ".join(map(str, [*row, "yes" if e["kept"] else "**no**"])) + " |")
    kept = sum(e["kept"] for e in entries)
    counts = f"{len({e['network'] for e in entries})} networks, R = {entries[0]['references']}"
    return "\n".join([*lines, "", f"{kept} of {len(entries)} limits kept ({counts}, {RUNS} runs each)."])


def put(page: Path, text: str) -> None:
    """Puts the table under its heading, in the place of the one before."""
    before, found, after = page.read_text().partition(f"{HEADING}\n")
    if not found:
        raise SystemExit(f"{page} has no heading {HEADING!r}")
    own, mark, rest = after.partition("\n## ")
    said = own.partition("| network |")[0].strip()
    page.write_text(f"{before}{found}\n{said}\n\n{text}\n{mark}{rest}")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", type=Path)
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    entries: list[dict[str, Any]] = []
    if arguments.out is not None and arguments.out.exists():
        entries = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    known = {(e["network"], e["references"]) for e in entries}
    for model in arguments.networks:
        if (model.stem.removesuffix("_torchscript"), arguments.references) in known:
            continue
        for entry in entries_of(model, arguments.references):
            entries.append(entry)
            print(json.dumps(entry), flush=True)
            if arguments.out is not None:
                with arguments.out.open("a") as stream:
                    stream.write(json.dumps(entry) + "\n")
    text = table(entries)
    print(text)
    if arguments.page is not None:
        put(arguments.page, text)


if __name__ == "__main__":
    main()

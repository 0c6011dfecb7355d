"""What each pass brings: from `@naive` to `@default`, one pass added at a time.

    python tests/bench/ablation.py --names resnet50 --references 10 --write docs/benchmarks.md [options]

Each program is compiled, saved and measured as vs_peers.py measures: time, peak memory, FLOPs, nodes and size
of the file.  The programs follow from the two pipelines as they are: nothing here names a pass.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from versus.machine import describe
from versus.page import write_page
from versus.record import Record
from versus.rounds import Bench, say
from versus.systems import COMPILED, System
from vs_peers import NAMES, command, options, plan

from irshap.compiler.catalog import parse_pipeline
from irshap.pipeline.base import Pass
from irshap.pipeline.text import format_pipeline

__all__ = ["Step", "steps"]


@dataclass(frozen=True)
class Step:
    """A program between the two."""

    name: str
    title: str
    pipeline: str


def steps(naive: str = "@naive", default: str = "@default") -> list[Step]:
    """From one pipeline to the other.

    All passes of `naive` but those that bind the references must be in `default`, in the same order.  Its way
    of binding stays, where `default` will bind, until the pass that does that is added.

    Raises:
        ValueError: there is no such way from one to the other.
    """
    first, last = parse_pipeline(naive), parse_pipeline(default)
    names = [p.name for p in last]
    binders = [p for p in first if p.binds_references and p.name not in names]
    common = _positions([p for p in first if p not in binders], last)
    binding = next((i for i, p in enumerate(last) if p.binds_references), len(last) - 1)
    added = [i for i in range(len(last)) if i not in common]
    found, seen = [Step("naive", f"`{naive}`", format_pipeline(first))], Counter[str]()
    for number, position in enumerate(added, 1):
        kept = common | set(added[:number])
        chosen = [p for i, p in enumerate(last) if i in kept]
        if not any(p.binds_references for p in chosen):
            at = sum(i < binding for i in kept)
            chosen[at:at] = binders
        name = names[position]
        seen[name] += 1
        again = f" ({seen[name]})" if seen[name] > 1 else ""
        end = number == len(added)
        title = f"+ {name}{again}" + (f" = `{default}`" if end else "")
        found.append(Step("default" if end else f"{name}{again}", title, format_pipeline(chosen)))
    return found


def _positions(few: Sequence[Pass], many: Sequence[Pass]) -> set[int]:
    """Where `few` stands in `many`, each as late as can be."""
    found, end = set(), len(many)
    for wanted in reversed(few):
        end = next((i for i in reversed(range(end)) if many[i].name == wanted.name), -1)
        if end < 0:
            raise ValueError(f"pass {wanted.name} has no place in the longer pipeline")
        found.add(end)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[options()]
    )
    parser.add_argument("--names", nargs="+", default=["resnet50"], choices=NAMES)
    parser.add_argument("--references", nargs="+", type=int, default=[10])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    out = given.out or given.work / "results.json"
    record = Record(out, "ablation")
    if not given.known:
        way = steps()
        record.data["steps"] = [asdict(step) for step in way]
        describe(record, command("ablation.py"))
        bench = Bench(plan(given), record)
        systems = [System(s.name, s.title, COMPILED, "onnx", s.pipeline) for s in way]
        for name in given.names:
            bench.prepare(name)
            for count in given.references:
                say(f"{name}, R = {count}")
                bench.cell(name, count, systems)
    if given.write is not None:
        write_page(Record(out, "peers"), record, given.write)


if __name__ == "__main__":
    main()

"""irshap against SHAP, Captum and a hand-written torch program: time, memory, completeness.

    python tests/bench/vs_peers.py --out results.json --write docs/benchmarks.md [options]

For each network and number of references, every system runs in a fresh process of its own: cold once, then
in rounds, in turn with all others and with the plain inference of 1 and of R samples.  Results are added to
--out as they come; what is there, failures too, is not measured again.  --nets holds NAME_torchscript.onnx
files, as tests/bench/networks.py writes them; missing ones are exported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from architectures import SUITES
from versus.machine import describe
from versus.page import write_page
from versus.record import Record
from versus.rounds import GIB, Bench, Plan, cells, say
from versus.systems import SYSTEMS, YARDSTICK

NAMES = ("vgg19", "resnet50", "densenet201", "efficientnet_b0")


def options() -> argparse.ArgumentParser:
    """Those that the ablation has, too."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="folder (build/bench)")
    parser.add_argument("--nets", type=Path, help="folder of the exported networks (WORK/nets)")
    parser.add_argument("--out", type=Path, help="results (WORK/results.json)")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the page, with a plot beside it")
    parser.add_argument("--torch-python", default=sys.executable, help="the Python with torch, SHAP, Captum")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--enough", type=float, default=150.0, metavar="SECONDS")
    parser.add_argument("--memory", type=float, default=18.0, metavar="GIB", help="of all workers together")
    parser.add_argument("--known", action="store_true", help="measure nothing, write the page again")
    return parser


def plan(given: argparse.Namespace) -> Plan:
    """The plan that the options describe."""
    return Plan(
        nets=given.nets or given.work / "nets",
        work=given.work,
        pythons={"onnx": sys.executable, "torch": given.torch_python},
        rounds=given.rounds,
        enough=given.enough,
        memory=int(given.memory * GIB),
    )


def command(script: str) -> str:
    """This run's, without the places that are this machine's."""
    places = ("--work", "--nets", "--out", "--torch-python")
    given, skip = [], False
    for word in sys.argv[1:]:
        if not skip and not word.startswith(places):
            given.append(word)
        skip = word in places
    return " ".join(["python", f"tests/bench/{script}", *given])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[options()]
    )
    parser.add_argument("--names", nargs="+", help="of torchvision's classifiers; the suite's, or the four")
    parser.add_argument("--suite", choices=SUITES, help="a list of networks (architectures.py)")
    parser.add_argument("--references", nargs="+", type=int, default=[1, 5, 10, 20])
    chosen = [name for name in SYSTEMS if SYSTEMS[name] not in YARDSTICK]
    parser.add_argument("--systems", nargs="+", default=chosen, choices=chosen)
    parser.add_argument("--again", nargs="+", default=[], choices=chosen, help="forget these results first")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    out = given.out or given.work / "results.json"
    record = Record(out, "peers")
    if not given.known:
        bench = Bench(plan(given), record)
        describe(record, command("vs_peers.py"))
        names = given.names or (SUITES[given.suite] if given.suite else NAMES)
        for name in names:
            bench.prepare(name)
        for name, count in cells(names, given.references):
            for system in given.again:
                record.cell(name, count)["systems"].pop(system, None)
            systems = [SYSTEMS[s] for s in given.systems]
            fewest = count == min(given.references)
            say(f"{name}, R = {count}")
            if fewest:
                bench.truth(name, count)
            bench.cell(name, count, [s for s in systems if s.timed or fewest])
    if given.write is not None:
        write_page(record, Record(out, "ablation"), given.write)


if __name__ == "__main__":
    main()

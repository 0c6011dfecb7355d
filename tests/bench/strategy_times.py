"""How long a run takes with each strategy, against plain inference and against the first of them.

    python tests/bench/strategy_times.py --nets FOLDER [--threads 1] [NAME ...] [--programs stream ...]

Programs are the strategies of @default, "stream:data", which reads what is stored from a data file, and
pipelines, such as "@default{without=polyphase}".  Runs of all of them and of plain inference of 1 and of R
samples take turns; times are medians.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from cost_truth import DATA, pipeline
from op_profile import Runs, options, random_inputs

import irshap

PROGRAMS = ("fold", "stream", f"stream{DATA}", "recompute")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--programs", nargs="+", default=PROGRAMS)
    given = parser.parse_args()
    print("| network | program | file, MiB | by inference | by the first |\n| --- | --- | --- | --- | --- |")
    for name in given.names:
        network = given.nets / f"{name}_torchscript.onnx"
        sample, references = random_inputs(network, 1, given.references)
        with tempfile.TemporaryDirectory() as folder:
            inputs = (sample, references)
            runs = {x.shape[0]: Runs(network, {"image": x}, threads=given.threads) for x in inputs}
            programs: dict[str, Runs] = {}
            sizes: dict[str, int] = {}
            for i, program in enumerate(given.programs):
                file = Path(folder) / f"{i}.onnx"
                passes = program if program.startswith("@") else pipeline(program.removesuffix(DATA))
                compiled = irshap.compile(network, references, passes=passes)
                compiled.save(file, external_data=program.endswith(DATA))
                del compiled
                sizes[program] = sum(f.stat().st_size for f in Path(folder).glob(f"{file.name}*"))
                programs[program] = Runs(file, {"image": sample}, threads=given.threads)
            for _ in range(given.runs + 1):
                for system in (*runs.values(), *programs.values()):
                    system.run()
            inference = sum(np.array(r.seconds[1:]) for r in runs.values())
            first = np.array(programs[given.programs[0]].seconds[1:])
            for program, system in programs.items():
                seconds = np.array(system.seconds[1:])
                by = [f"{np.median(seconds / yardstick):.2f}" for yardstick in (inference, first)]
                print(f"| {name} | {program} | {sizes[program] / 2**20:.0f} | {' | '.join(by)} |", flush=True)


if __name__ == "__main__":
    main()

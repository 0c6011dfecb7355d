"""Exports cases of one model, in a process of its own.

    python -m zoo_models.exporting FOLDER SUITE MODEL STEM ...

Writes STEM.onnx and STEM.npz (inputs) for each case, or STEM.error with what the exporter said.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from zoo_models.suites import SUITES


def _plain(error: Exception) -> str:
    """What an exporter says, without colours and advice: of the first cause where there is one."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(error) if cause is error else f"{type(cause).__name__}: {cause}"
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def main() -> None:
    folder, suite, name, *stems = sys.argv[1:]
    (Path(folder) / suite).mkdir(parents=True, exist_ok=True)
    made = SUITES[suite]
    model, inputs = made.build(name)
    for case in made.cases(name):
        if case.stem not in stems:
            continue
        file = Path(folder) / suite / f"{case.stem}.onnx"
        try:
            made.export(case, model, inputs, file).save(file.with_suffix(".npz"))
        except Exception as error:  # whatever an exporter raises is its answer
            file.unlink(missing_ok=True)
            file.with_suffix(".error").write_text(f"{type(error).__name__}: {_plain(error)}")


if __name__ == "__main__":
    main()

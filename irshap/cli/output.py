"""What commands print, show and write: tables, JSON, progress, files that are whole or not there."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from irshap.contract import COMPLETENESS_ERROR, Metadata
from irshap.errors import UserError, is_text, printable
from irshap.files import own_data

__all__ = [
    "echo_json",
    "require_apart",
    "require_folder",
    "size_text",
    "table",
    "warn_incomplete",
]

_PIPED_WIDTH = 200


def echo_json(data: Any) -> None:
    """Prints a report as JSON, which has no NaN and no infinity: those become null."""
    click.echo(json.dumps(_finite(data), indent=2, ensure_ascii=False, default=str))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = ()) -> None:
    """Prints a table; wide when piped, so that nothing is cut off."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # The cells hold names from models, so nothing in them is markup.
    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        justify: Any = "right" if i in numeric else "left"
        grid.add_column(column, justify=justify, overflow="fold", no_wrap=i == 0)
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def warn_incomplete(metadata: Mapping[str, str]) -> None:
    """Says on standard error which ops keep a model's attributions from summing up."""
    from irshap.attribution.gaps import from_text

    for gap in from_text(metadata.get(Metadata.GAPS, "")):
        what = f"attributions leave out what {gap.where} does: {gap.reason}"
        click.echo(printable(f"warning: {what}; see {COMPLETENESS_ERROR}"), err=True)


def size_text(count: int) -> str:
    """`212.3 KiB`."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def require_folder(path: str | None) -> None:
    """Refuses an output whose folder isn't there, before any work is done for it."""
    if path is not None and not is_text(path):
        raise UserError("its name is no UTF-8", where=printable(path), mend="give another name")
    if path is not None and not Path(path).parent.is_dir():
        raise UserError("its folder doesn't exist", where=path, mend="create it first")
    if path is not None and Path(path).is_dir():
        raise UserError("is a folder", where=path, mend="give a file name in it")
    if path is not None and Path(path).exists() and not Path(path).is_file():
        raise UserError("is not a regular file", where=path, mend="give the name of a file")


def require_apart(
    output: str, model: str | None = None, inputs: Mapping[str, str | None] | None = None
) -> None:
    """Refuses an output that would overwrite the model, its data, or one of the inputs, by what they are.

    Data files of an older output of that name go, so these count, too.
    """
    written = (Path(output), *own_data(output))
    read = {what: Path(path) for what, path in (inputs or {}).items() if path is not None}
    if model is not None:
        read["the model"] = Path(model)
        if any(p.exists() for p in written):
            read |= {f"the model's data {p.name!r}": p for p in _data_files(Path(model))}
    for what, path in read.items():
        if any(p.resolve() == path.resolve() or _is_same(p, path) for p in written):
            mend = "give another name for the new file"
            raise UserError(f"it would overwrite {what}", where=output, mend=mend)


def _is_same(a: Path, b: Path) -> bool:
    """Whether both are one file, by whatever names."""
    return a.exists() and b.exists() and a.samefile(b)


def _data_files(model: Path) -> set[Path]:
    """The files that a model's external data lies in; none of what is no model."""
    import onnx
    from google.protobuf.message import DecodeError

    from irshap.lowering.files.external import locations

    try:
        message = onnx.load_model(model, load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return set()
    return {model.parent / name for name in locations(message)}

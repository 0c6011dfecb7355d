"""What samples are called, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irshap.contract import said
from irshap.errors import UserError

__all__ = ["LABELS", "read_labels"]

LABELS = click.option(
    "--labels",
    metavar="FILE",
    help="What the samples are called: a text with a line for each, or .json or .npy.  [default: numbers]",
)


def read_labels(file: str | None) -> Any:
    """One for each sample, from lines of text, a list in JSON, or an array; None without a file.

    Raises:
        UserError: it can't be read, or is no list.
    """
    if file is None:
        return None
    from irshap.runtime.arrays import as_arrays

    ending = Path(file).suffix.lower()
    if ending == ".npy":
        return as_arrays(file, ["labels"], UserError, "labels")["labels"]
    try:
        text = Path(file).read_text(encoding="utf-8-sig")  # some editors begin with a mark
        found = said(text) if ending == ".json" else text.splitlines()
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=file) from error
    except UnicodeDecodeError as error:
        raise UserError("is no text", where=file, mend="write a line for each sample, in UTF-8") from error
    except ValueError as error:
        raise UserError(f"is no JSON: {error}", where=file, mend='write ["first", "second", ...]') from error
    if not isinstance(found, list):
        raise UserError("is no list", where=file, mend='write ["first", "second", ...]')
    return found

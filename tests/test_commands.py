"""The commands of README.md and docs/: those of blocks run, those of sentences exist with their options.

Blocks whose commands are parsed, and not run:
- docs/cost.md and docs/measures.md take many seconds; tests/cli/test_cost.py and tests/metrics run these
  commands on small models;
- docs/scale.md needs a cluster of Ray, docs/adding_a_pass.md a package of the reader's, which
  tests/compiler/test_user_passes.py installs and runs.

Neither run nor parsed: CONTRIBUTING.md's, which tests/test_docs.py runs in a shell, and `make`, `docker`,
`pip` and other programs than irshap, which need the network or a server.

The files that pages name are small ones here: the networks are the digits CNN, the data 24 digits.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pytest
from places import ROOT
from shells import Shell

import irshap
from irshap import demo
from irshap.cli.commands import cli

IMAGES, LABELS = (array[:24] for array in demo.digits())
PARSED = {"docs/cost.md", "docs/measures.md", "docs/scale.md", "docs/adding_a_pass.md"}


def texts() -> dict[str, str]:
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in files}


PAGES = texts()
FENCED = re.compile(r"^```(.*)\n((?:(?!```).*\n)*)```$", re.MULTILINE)
SENTENCE = re.compile(r"`irshap (\w[^`]*)`")
INDENTED = re.compile(r"^    irshap (\w.*)$", re.MULTILINE)


def lines_of(block: str) -> Iterator[tuple[list[str], str]]:
    """Each command of a block with what the page prints below it."""
    for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield shlex.split(command, comments=True), printed


def commands(text: str) -> list[list[tuple[list[str], str]]]:
    """irshap's commands of each block of a page, of indented lines too, with what is printed below each."""
    found = [list(lines_of(block)) for kind, block in FENCED.findall(text) if kind in ("console", "")]
    found += [[(["irshap", *shlex.split(line)], "")] for line in INDENTED.findall(text)]
    ours = [[(c[1:], printed) for c, printed in block if c[0] == "irshap"] for block in found]
    return [block for block in ours if block]


RUN = [(page, i, b) for page in PAGES if page not in PARSED for i, b in enumerate(commands(PAGES[page]))]


@cache
def explained() -> bytes:
    return bytes(irshap.compile(demo.model_path(), demo.references_path()))


def with_nan() -> np.ndarray:
    rows = IMAGES.copy()
    rows[7, 0, 3, 3] = np.nan
    return rows


FILES: dict[str, Callable[[], object]] = {
    "digits.onnx": lambda: shutil.copy(demo.model_path(), "digits.onnx"),
    "model.onnx": lambda: shutil.copy(demo.model_path(), "model.onnx"),
    "references.npy": lambda: shutil.copy(demo.references_path(), "references.npy"),
    "digits.npy": lambda: np.save("digits.npy", IMAGES),
    "rows.npy": lambda: np.save("rows.npy", IMAGES),
    "bad.npy": lambda: np.save("bad.npy", with_nan()),
    "explained.onnx": lambda: Path("explained.onnx").write_bytes(explained()),
    "data.npz": lambda: np.savez("data.npz", image=IMAGES, labels=LABELS, image_mask=np.ones_like(IMAGES)),
}
"""What a block reads and hasn't written, by its name."""

FAILS = {"bad.npy"}
"""What a page shows that a command complains of."""


def shape_of(text: str) -> list[str]:
    """Lines without numbers, what numbers make plural, spaces and rules: what may not change unnoticed."""
    bare = re.sub(r"[─ ]+", " ", re.sub(r"(?<=[a-z])s\b", "", re.sub(r"-?\d[\d.]*(e[+-]\d+)?", "0", text)))
    return [line.strip() for line in bare.splitlines() if line.strip() not in ("", "...")]


@pytest.mark.parametrize(("page", "number", "block"), RUN, ids=[f"{page}-{i}" for page, i, _ in RUN])
def test_a_block_runs(
    page: str,
    number: int,
    block: list[tuple[list[str], str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path, capsys)
    for command, printed in block:
        for word in command:
            name = word.rpartition("=")[2]
            if name in FILES and not Path(name).exists() and word not in written(command):
                FILES[name]()
        shell(*command)
        assert shell.code == int(not FAILS.isdisjoint(command)), shell.err
        out = " ".join(shape_of(shell.out + shell.err))
        for line in shape_of(printed):
            told = re.escape(line).replace(re.escape("..."), ".+")
            assert re.search(told, out), f"{page} prints {line!r}, not in {out}"


def written(command: list[str]) -> set[str]:
    return {after for word, after in pairwise(command) if word in ("-o", "--output")}


def command_of(name: str) -> click.Command | None:
    return cli.get_command(click.Context(cli), name)


def test_commands_of_blocks_are_understood() -> None:
    """Options with their kinds of values, and what must be given, without running anything."""
    given = [words for text in PAGES.values() for block in commands(text) for words, _ in block]
    assert len(given) > 20
    for name, *words in given:
        command = command_of(name)
        assert command is not None, name
        command.make_context(name, list(words))


def test_what_sentences_name_exists() -> None:
    """The commands and options that pages and docstrings name between backticks."""
    sources = {f.name: f.read_text(encoding="utf-8") for f in (ROOT / "irshap").rglob("*.py")}
    found = [(page, line) for page, text in (PAGES | sources).items() for line in SENTENCE.findall(text)]
    assert len(found) > 100
    for page, line in found:
        name, *words = line.split()
        command = command_of(name)
        assert command is not None, f"{page}: irshap {line}"
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
        named = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert named <= known, f"{page}: irshap {line}"

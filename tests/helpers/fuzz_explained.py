"""Explained files that somebody changed, by seed: their metadata, names and ends.  Who reads them refuses
them, or goes by them as data.  What ONNX Runtime runs stays as it was compiled: its faults aren't irshap's.
"""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
from fuzz_data import NETWORK, REFERENCES
from fuzz_workers import Kind, Outcome, judged

import irshap
from irshap import report
from irshap.cli import main
from irshap.contract import Metadata
from irshap.errors import UserError
from irshap.report.card import facts
from irshap.runtime import Explainer
from irshap.serving import package

__all__ = ["EXPLAINED", "RISKY"]

Random = np.random.Generator

RISKY = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
TEXTS = (
    RISKY,
    "\x1b[2J\x1b]0;title\x07",
    "a\nb\r\0c",
    "\u202eevil",
    "../../x",
    "/etc/passwd",
    "",
    "N",
    "x" * 5000,
)
TEXTS += ("{{ config }}", "${x}", "'); --", "é" * 99, "\ufeff", "CON", "-rf", "[red]x[/red]")
VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    2**31,
    2**63,
    10**400,
    float("nan"),
    [],
    {},
    [[]],
    {"": 1},
    {"x": {"x": []}},
    "",
)
RAW = ("", "[" * 100_000, '{"a":' * 5000, "null", "NaN", "\\ud800", '"\\ud800"', "1" * 5000, "{", "0x1", " ")
DRAWN = 5
"""Of how many files one is drawn: that takes longer than all else."""


def _compiled(**options: Any) -> tuple[bytes, dict[str, Any]]:
    given = {"references": REFERENCES} | options.pop("given", {})
    made = irshap.compile(onnx.parser.parse_model(NETWORK), **given, **options)
    content = made.model.SerializeToString()
    feed: dict[str, Any] = {"x": REFERENCES}
    for name in Explainer(content).input_names[1:]:
        kinds = {"target": np.array([1, 0]), "target_weights": np.ones((2, 2), np.float32)}
        feed[name] = kinds.get(name, np.stack([REFERENCES, REFERENCES + 1]))
    return content, feed


@cache
def files() -> tuple[tuple[bytes, dict[str, Any]], ...]:
    """An explained file of each kind, with what it is run on."""
    names = {"features": ["a", "b", "c"], "classes": ["no", "yes"]}
    return (
        _compiled(names=names),
        _compiled(target="input"),
        _compiled(target="top-2", names=names, summary="top=2"),
        _compiled(target="all"),
        _compiled(target="weights"),
        _compiled(method="gradient", given={"references": None}),
        _compiled(given={"references": irshap.References(per_sample=True)}),
        _compiled(passes="@default{before=(lower, 'fix-batch{size=2}')}".replace("'", '"')),
        _compiled(method='deeplift{emit="multipliers,completeness_error"}'),
    )


def _places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _places(value, (*at, key))


def _changed_json(text: str, rng: Random) -> str:
    """`text` with something in it replaced, left out, or called otherwise."""
    data = [json.loads(text)]
    places = [place for place in _places(data) if place]
    *way, last = places[int(rng.integers(len(places)))]
    inner: Any = data
    for key in way:
        inner = inner[key]
    kind = int(rng.integers(4))
    if kind == 0:
        inner[last] = VALUES[int(rng.integers(len(VALUES)))]
    elif kind == 1:
        inner[last] = str(rng.choice(TEXTS))
    elif kind == 2 and isinstance(inner, dict):
        inner[str(rng.choice(TEXTS))] = inner.pop(last)
    elif isinstance(inner, list):
        inner.append(inner[last])
    else:
        del inner[last]
    return json.dumps(data[0] if data else None)


def metadata(model: onnx.ModelProto, rng: Random) -> None:
    keys = [value for key, value in vars(Metadata).items() if key.isupper()]
    entry = model.metadata_props[int(rng.integers(len(model.metadata_props)))]
    kind = int(rng.integers(5))
    if kind == 0:
        model.metadata_props.remove(entry)
    elif kind == 1:
        entry.value = str(rng.choice(RAW))
    elif kind == 2:
        model.metadata_props.add(key=str(rng.choice(keys)), value=str(rng.choice((*RAW, *TEXTS))))
    elif kind == 3:
        entry.value = str(rng.choice(TEXTS)).replace("\0", "")
    else:
        told = [e for e in model.metadata_props if e.value.startswith(("{", "["))]
        if told:
            entry = told[int(rng.integers(len(told)))]
            with suppress(ValueError, RecursionError):
                entry.value = _changed_json(entry.value, rng)


def tensors(model: onnx.ModelProto, rng: Random) -> None:
    """Roles that tensors may have by name, said or changed."""
    text = next((e.value for e in model.metadata_props if e.key == Metadata.TENSORS), None)
    ends = [v.name for v in (*model.graph.input, *model.graph.output)]
    told = json.loads(text) if text and text.startswith("{") else {}
    roles = ("base_values", "target_index", "target_values", "completeness_error", "target", "target_weights")
    roles += ("reference_weights",)
    by_name = ("attributions", "multipliers", "hypothetical", "references", "summaries")
    if not isinstance(told, dict):
        return
    for _ in range(1 + int(rng.integers(3))):
        if rng.random() < 0.5:
            told[str(rng.choice(roles))] = str(rng.choice(ends))
        else:
            told[str(rng.choice(by_name))] = {str(rng.choice([*ends, "x", *TEXTS])): str(rng.choice(ends))}
    told.setdefault("attributions", {"x": str(rng.choice(ends))})
    kept = [e for e in model.metadata_props if e.key != Metadata.TENSORS]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=Metadata.TENSORS, value=json.dumps(told))


def names(model: onnx.ModelProto, rng: Random) -> None:
    """An end called otherwise, wherever it is named."""
    ends = [v.name for v in (*model.graph.input, *model.graph.output)]
    old, new = str(rng.choice(ends)), str(rng.choice(TEXTS)).replace("\0", "") or "y"
    if rng.random() < 0.5:
        new += "_attributions"
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for entry in model.metadata_props:
        if rng.random() < 0.7:
            entry.value = entry.value.replace(json.dumps(old), json.dumps(new))


def ends(model: onnx.ModelProto, rng: Random) -> None:
    """Sizes and types that aren't so, and outputs in another order, or fewer."""
    values = [*model.graph.input, *model.graph.output]
    value = values[int(rng.integers(len(values)))]
    kind = int(rng.integers(5))
    dims = value.type.tensor_type.shape.dim
    if kind == 0:
        value.type.tensor_type.ClearField("shape")
    elif kind == 1 and dims:
        dims[int(rng.integers(len(dims)))].dim_param = str(rng.choice(["N", "R", "k", RISKY]))
    elif kind == 2 and dims:
        dims[int(rng.integers(len(dims)))].dim_value = int(rng.choice([0, 1, 2, -1, 2**40]))
    elif kind == 3:
        del model.graph.output[int(rng.integers(len(model.graph.output)))]
    else:
        kept = list(model.graph.output)
        rng.shuffle(kept)  # type: ignore[arg-type]
        del model.graph.output[:]
        model.graph.output.extend(kept)


MUTATIONS: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    metadata,
    metadata,
    metadata,
    tensors,
    names,
    ends,
)


def made(seed: int) -> bytes:
    """The number of the kind in one byte, and the file."""
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(files())))
    model = onnx.ModelProto.FromString(files()[at][0])
    for _ in range(1 + int(rng.integers(3))):
        if model.metadata_props and model.graph.output:
            with suppress(ValueError, RecursionError):
                MUTATIONS[int(rng.integers(len(MUTATIONS)))](model, rng)
    return bytes([at]) + model.SerializeToString()


# --- who reads them ----------------------------------------------------------------------------------


def _given(explainer: Explainer, feed: Mapping[str, Any]) -> dict[str, Any]:
    """The feed by the names that inputs have now."""
    return dict(zip(explainer.input_names, feed.values(), strict=False))


def _steps(content: bytes) -> Iterator[str]:
    at, content = content[0], content[1:]
    with tempfile.TemporaryDirectory(prefix="irshap-fuzz-") as name:
        folder = Path(name)
        path = folder / "explained.onnx"
        path.write_bytes(content)
        for kind in ("docker", "triton", "kserve"):
            with suppress(UserError):
                package(path, kind, folder / kind)
        if [p for p in folder.rglob("*") if folder not in p.resolve().parents]:
            raise AssertionError("a package reaches out of its folder")
        _at_the_command_line(folder, files()[at][1])
        explainer = Explainer(path)
        yield "read"
        explanation = explainer(_given(explainer, files()[at][1]))
        yield "explained"
        repr(explanation)
        explanation.records()
        explanation.largest()
        with suppress(UserError):
            explanation.save(folder / "e.npz")
            irshap.Explanation.load(folder / "e.npz")
        _require_text(explanation._repr_html_())
        if zlib.crc32(content) % DRAWN == 0:
            _require_text(report.page(explanation, title=RISKY, card=facts(explainer, path)))
            yield "drawn"


def _require_text(page: str) -> None:
    if "<script>alert" in page or "<img src=x" in page:
        raise AssertionError("a name is read as HTML")


def _at_the_command_line(folder: Path, feed: Mapping[str, Any]) -> None:
    np.savez(folder / "x.npz", **feed)
    file, samples = str(folder / "explained.onnx"), str(folder / "x.npz")
    for words in (("run",), ("run", "--json"), ("report",)):
        told = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with redirect_stdout(told), redirect_stderr(told):
            code = main([words[0], file, samples, *words[1:]])
        text = told.buffer.getvalue().decode()  # type: ignore[attr-defined]
        if code not in (0, 1, 2) or "Traceback" in text:
            raise AssertionError(f"irshap {' '.join(words[:2])} ends with {code}: {text[-300:]!r}")
        if strange := {c for c in text if not c.isprintable()} - {"\n"}:
            raise AssertionError(f"irshap {' '.join(words[:2])} prints {sorted(strange)}")


def _outcome(content: bytes, *, reraise: bool = False) -> Outcome:
    return judged(_steps(content), reraise)


EXPLAINED = Kind(made, _outcome)

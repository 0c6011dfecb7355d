"""`irshap homogeneity` and `irshap x-dnn`: whether a model scales with its input, and one that does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.output import echo_json, require_apart, require_folder, size_text, table
from irshap.errors import printable

if TYPE_CHECKING:
    from irshap.attribution.homogeneity import Homogeneity
    from irshap.ir.degrees import Broken, Degree

__all__ = ["homogeneity_command", "x_dnn_command"]

_LIFTED = "lift,canonicalize"
_BIAS_FREE = "lift,remove-bias,canonicalize,dce"


@click.command("homogeneity")
@click.argument("model")
@click.option("--values", is_flag=True, help="Every value, not the outputs alone.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def homogeneity_command(model: str, values: bool, as_json: bool) -> None:
    """Tell for each output of MODEL its degree in each float input: k where f(a x) = a^k f(x) for all a > 0.

    Where there is none, the first op that breaks it, and why.  The method x-gradient needs a positive degree;
    `irshap x-dnn` takes biases out.
    """
    found = _analysed(model, _LIFTED)
    if as_json:
        echo_json(_facts(found, values=values))
    else:
        _print(found, values=values)


@click.command("x-dnn")
@click.argument("model")
@click.argument("output", metavar="OUT.onnx")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def x_dnn_command(model: str, output: str, as_json: bool) -> None:
    """Write MODEL without biases, and without shifts and running means of batch normalization.

    A network of bias-free layers, ReLUs and pooling scales with its input, so that x-gradient explains it.
    It is another function: train it, or measure what it lost.
    """
    from irshap.compiler.catalog import PassManager
    from irshap.lowering.files.save import save_model

    require_folder(output)
    require_apart(output, model)
    manager = PassManager.from_text(f"{_BIAS_FREE},lower")
    save_model(manager.run(model), output)
    removed = sum(r.statistics.get("biases removed", 0) for r in manager.report.passes)
    found = _analysed(output, _LIFTED)
    if as_json:
        echo_json({"output": output, "removed": removed, **_facts(found, values=False)})
        return
    click.echo(f"{output}: {size_text(Path(output).stat().st_size)}, without the biases of {removed} ops")
    _print(found, values=False)


def _analysed(model: str, passes: str) -> Homogeneity:
    from irshap.attribution.homogeneity import homogeneity
    from irshap.compiler.catalog import PassManager
    from irshap.ir.core import Graph

    graph = PassManager.from_text(passes).run(model)
    assert isinstance(graph, Graph)
    return homogeneity(graph)


def _facts(found: Homogeneity, *, values: bool) -> dict[str, Any]:
    outputs = {
        name: {of or "all": _fact(degree) for of, degree in degrees.items()}
        for name, degrees in found.outputs.items()
    }
    if not values:
        return {"outputs": outputs}
    rows = [
        {"value": name, "op": op, "degrees": {of or "all": _fact(d) for of, d in degrees.items()}}
        for name, op, degrees in _rows(found)
    ]
    return {"outputs": outputs, "values": rows}


def _fact(degree: Degree | Broken) -> dict[str, Any]:
    from irshap.ir.degrees import Broken

    if isinstance(degree, Broken):
        return {"degree": None, "op": degree.node.label, "reason": degree.reason}
    return {"degree": "any" if degree is None else degree}


def _rows(found: Homogeneity) -> list[tuple[str, str, dict[str, Degree | Broken]]]:
    from irshap.ir.walks import is_float

    listed = []
    for node in found.graph.statements:
        for value in filter(is_float, node.results):
            if node.operands or node.op.is_input:
                degrees = {name: found.of[name][value] for name in found.scaled}
                listed.append((value.name or "-", node.label, degrees))
    return listed


def _print(found: Homogeneity, *, values: bool) -> None:
    columns = [name or "all inputs" for name in found.scaled]
    if values:
        rows = [[name, op, *map(_text, degrees.values())] for name, op, degrees in _rows(found)]
        table(["value", "op", *columns], rows)
    table(["output", *columns], [[name, *map(_text, d.values())] for name, d in found.outputs.items()])


def _text(degree: Degree | Broken) -> str:
    from irshap.ir.degrees import Broken

    if isinstance(degree, Broken):
        return printable(f"none: {degree.node.label}: {degree.reason}")
    return "any (zero)" if degree is None else f"{degree:g}"

"""`irshap passes`, `irshap methods` and `irshap ops`: what there is."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.output import echo_json, table
from irshap.errors import PipelineError, near

if TYPE_CHECKING:
    from irshap.ir.core import Op
    from irshap.pipeline.base import Pass

__all__ = ["methods_command", "ops_command", "passes_command"]


@click.command("passes")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def passes_command(name: str | None, as_json: bool) -> None:
    """List the passes and named pipelines, or tell all about the pass NAME."""
    from irshap.compiler.catalog import PASSES
    from irshap.pipeline.named import PIPELINES

    _warn_unavailable()
    known = PASSES
    if name is not None:
        if name not in known:
            raise PipelineError(f"no pass is called {name!r}", mend=near(name, known))
        facts = _facts(known[name])
        if as_json:
            echo_json(facts)
        else:
            _print_pass(facts)
        return
    listed = [_facts(known[n]) for n in sorted(known)]
    if as_json:
        echo_json({"passes": listed, "pipelines": {f"@{n}": text for n, text in PIPELINES.items()}})
        return
    heads = ["pass", "contract", "options", "requires", "ensures", "outputs"]
    rows = []
    for facts in listed:
        options = ", ".join(o["text"] for o in facts["options"])
        properties = (", ".join(facts[k]) or "-" for k in ("requires", "ensures"))
        rows.append(
            [
                facts["name"],
                facts["contract"].splitlines()[0],
                options or "-",
                *properties,
                facts["semantics"],
            ]
        )
    table(heads, rows)
    for pipeline, text in PIPELINES.items():
        click.echo(f"@{pipeline} = {text}")


def _facts(cls: type[Pass]) -> dict[str, Any]:
    from irshap.pipeline.options import REQUIRED, expects, options_of

    return {
        "name": cls.name,
        "contract": inspect.getdoc(cls) or "",
        "options": [
            {
                "name": o.name,
                "takes": expects(o.type),
                "default": None if o.default is REQUIRED else o.default,
                "required": o.default is REQUIRED,
                "text": o.text,
            }
            for o in options_of(cls).values()
        ],
        "requires": sorted(cls.requires),
        "ensures": sorted(cls.ensures),
        "removes": sorted(cls.removes),
        "semantics": cls.semantics.value,
        "tolerance": cls.tolerance,
        "takes": cls.takes,
        "gives": cls.gives,
    }


def _print_pass(facts: dict[str, Any]) -> None:
    click.echo(f"{facts['name']}: {facts['takes']} -> {facts['gives']}\n\n{facts['contract']}\n")
    for option in facts["options"]:
        click.echo(f"  option    {option['text']}   ({option['takes']})")
    for kind in ("requires", "ensures", "removes"):
        if facts[kind]:
            click.echo(f"  {kind:<9} {', '.join(facts[kind])}")
    tolerance = f" within {facts['tolerance']:g}" if facts["tolerance"] else ""
    click.echo(f"  outputs   {facts['semantics']}{tolerance}")


@click.command("methods")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def methods_command(name: str | None, as_json: bool) -> None:
    """List the attribution methods with their options, or tell all about the method NAME."""
    from irshap.compiler.catalog import METHODS
    from irshap.pipeline.named import DEVICES, for_method

    _warn_unavailable()
    if name is not None and name not in METHODS:
        raise PipelineError(f"no method is called {name!r}", mend=near(name, METHODS))
    listed = []
    for method in sorted(METHODS if name is None else [name]):
        cls = METHODS[method]
        pipelines = {device: for_method(cls.points, device) for device in DEVICES}
        facts = {
            **_facts(cls),
            "runs": cls.points.value,
            "sums_to": cls.sums_to.value,
            "remainder": cls.remainder,
            "pipelines": pipelines,
        }
        listed.append(facts)
    if as_json:
        echo_json(listed if name is None else listed[0])
    elif name is not None:
        _print_pass(listed[0])
        click.echo(f"  runs      {listed[0]['runs']}\n  sums to   {listed[0]['sums_to']}")
        if listed[0]["remainder"]:
            click.echo(f"  but for   {listed[0]['remainder']}")
    else:
        heads = ["method", "contract", "options", "runs", "sums to", "pipelines"]
        table(heads, [_method_row(facts) for facts in listed])


def _method_row(facts: dict[str, Any]) -> list[str]:
    options = ", ".join(o["text"] for o in facts["options"])
    pipelines = " ".join(dict.fromkeys(facts["pipelines"].values()))
    contract = facts["contract"].splitlines()[0]
    return [facts["name"], contract, options or "-", facts["runs"], facts["sums_to"], pipelines]


def _warn_unavailable() -> None:
    from irshap.pipeline.base import UNAVAILABLE

    for what, why in UNAVAILABLE.items():
        click.echo(f"warning: {what} could not be imported: {why}", err=True)


@click.command("ops")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def ops_command(as_json: bool) -> None:
    """List the ops of the IR."""
    from irshap.ops import OPS

    listed = [
        {
            "op": name,
            "family": _family(cls),
            "meaning": (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " "),
        }
        for name, cls in sorted(OPS.items())
    ]
    if as_json:
        echo_json(listed)
    else:
        table(["op", "family", "meaning"], [list(facts.values()) for facts in listed])


def _family(cls: type[Op]) -> str:
    from irshap.ir.core import Op
    from irshap.ops import OPS

    bases = [
        c for c in cls.__mro__[1:] if issubclass(c, Op) and c not in OPS.values() and c.__name__[0] != "_"
    ]
    return "General" if bases[0] is Op else bases[0].__name__

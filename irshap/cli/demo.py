"""`irshap demo`: the whole way, on a model and data that come with irshap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irshap.cli.output import echo_json, size_text, table
from irshap.files import atomic

__all__ = ["demo_command"]


@click.command("demo")
@click.option(
    "--output-dir", "-o", default="irshap-demo", show_default=True, metavar="DIR", help="Where files go."
)
@click.option(
    "--digits", type=click.IntRange(1, 360), default=10, show_default=True, help="Test digits to explain."
)
@click.option(
    "--passes", metavar="PIPELINE", help="Passes to run instead of the default ones, such as @naive."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def demo_command(output_dir: str, digits: int, passes: str | None, as_json: bool) -> None:
    """Compile a small CNN for handwritten digits, explain some digits, and draw the attributions."""
    from irshap import demo
    from irshap.cli.run import explanation_rows

    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    from irshap.cli.progress import PassProgress

    with PassProgress() as progress:
        result = demo.run(folder, digits, passes=passes, progress=progress)
    records = [
        {"digit": int(label), **{k: v for k, v in row.items() if k != "sample"}, "milliseconds": ms}
        for label, row, ms in zip(
            result.labels, explanation_rows(result.explanation), result.milliseconds, strict=True
        )
    ]
    picture = _draw(result, folder / "attributions.png")
    report = {
        "model": str(result.path),
        "bytes": result.path.stat().st_size,
        "compile_seconds": result.compile_seconds,
        "references": result.references,
        "batch_milliseconds": result.batch_milliseconds,
        "rows": records,
        "picture": picture,
    }
    if as_json:
        echo_json(report)
        return
    _print(report, records)


def _draw(result: Any, path: Path) -> str | None:
    try:
        from irshap.demo.plot import draw
    except ImportError:
        click.echo('no picture: matplotlib is missing; install it with: pip install "irshap[plot]"', err=True)
        return None
    with atomic(path) as file:
        draw(result, file)
    return str(path)


def _print(report: dict[str, Any], records: list[dict[str, Any]]) -> None:
    click.echo(
        f"{report['model']}: digits CNN with {report['references']} references in one ONNX file, "
        f"{size_text(report['bytes'])}, compiled in {report['compile_seconds']:.2f} s"
    )
    heads = ["digit", "predicted", "f(x)", "base value", "sum of attributions", "completeness error", "ms"]
    rows = [
        [
            str(r["digit"]),
            str(r["target"]),
            f"{r['prediction']:.4f}",
            f"{r['base_value']:.4f}",
            f"{r['sum_of_attributions']:.4f}",
            f"{r['completeness_error']:.1e}",
            f"{r['milliseconds']:.2f}",
        ]
        for r in records
    ]
    table(heads, rows, numeric=range(len(heads)))
    click.echo(
        f"all {len(records)} in one run: {report['batch_milliseconds'] / len(records):.2f} ms for each digit"
    )
    if report["picture"]:
        click.echo(f"picture: {report['picture']} (red speaks for the predicted digit, blue against it)")

"""The commands and what they share: the list in `irshap --help`, and how errors end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from irshap.contract import VERSION
from irshap.errors import IrshapError, printable

__all__ = ["cli", "run"]

_COMMANDS = {
    "compile": ("irshap.cli.compile", "Compile a model and references into one ONNX file."),
    "references": ("irshap.cli.references", "Make references of data."),
    "run": ("irshap.cli.run", "Explain samples with a compiled model."),
    "explain": ("irshap.cli.explain", "Explain a data set, shard by shard, into a folder."),
    "report": ("irshap.cli.report", "Show explanations: a page of HTML, or tables."),
    "package": ("irshap.cli.package", "Write the folder that a server takes."),
    "cost": ("irshap.cli.cost", "Predict work, memory and how many references fit."),
    "verify": ("irshap.cli.verify", "Check that attributions sum to f(x) - base."),
    "evaluate": ("irshap.cli.evaluate", "Measure how good attributions are, side by side."),
    "axioms": ("irshap.cli.axioms", "Try which axioms a method, or an explained model, keeps."),
    "print": ("irshap.cli.ir", "Print a model in irshap's IR, or draw it."),
    "opt": ("irshap.cli.ir", "Run passes on IR text."),
    "diff": ("irshap.cli.diff", "Tell what differs between two programs."),
    "homogeneity": (
        "irshap.cli.homogeneity",
        "Tell whether a model scales with its inputs.",
    ),
    "x-dnn": ("irshap.cli.homogeneity", "Take the biases out of a model, so that it scales."),
    "train-step": ("irshap.cli.training", "Compile a step of training, with a prior on attributions."),
    "train": ("irshap.cli.training", "Train a model by such steps."),
    "passes": ("irshap.cli.listing", "List the passes and named pipelines."),
    "methods": ("irshap.cli.listing", "List the attribution methods and their options."),
    "ops": ("irshap.cli.listing", "List the ops of the IR."),
    "doctor": ("irshap.cli.doctor", "Tell which versions and parts are there, and try them."),
    "demo": ("irshap.cli.demo", "Compile a small CNN and explain digits with it."),
}
"""Where each command stands, and its line in `irshap --help`, which so waits for no module."""


class _Commands(click.Group):
    """Imports a command's module when it is asked for; those import the compiler when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(module), f"{cmd_name.replace('-', '_')}_command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(VERSION, prog_name="irshap")
def cli() -> None:
    """Compiles an ONNX model into one ONNX file that returns its prediction and its attributions."""


def run(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; errors are one message on standard error."""
    try:
        code = cli.main(args=None if args is None else list(args), prog_name="irshap", standalone_mode=False)
        # A closed pipe shows when buffers are written out, which should be in here.
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:  # what click makes of an interrupt
        return 130
    except BrokenPipeError:
        # The reader has gone (`irshap print model.onnx | head`).  Python would complain again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except IrshapError as error:
        _complain(str(error))
        return error.exit_code
    except MemoryError as error:
        _complain(
            f"there isn't enough memory for this: {error}" if str(error) else "there isn't enough memory"
        )
        return 2
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 2
    return code if isinstance(code, int) else 0


def _complain(message: str) -> None:
    # Names in a message may come from a model, and must not reach the terminal as control sequences.
    click.echo("error: " + printable(message, keep="\n"), err=True)

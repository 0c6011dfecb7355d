"""The command line: `irshap compile | run | cost | verify | print | opt | passes | methods | ops | demo`.

Exit codes: 0, 1 when a check failed (or irshap itself), 2 for bad input, 130 when interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from irshap import __version__
from irshap.errors import IrshapError

__all__ = ["cli", "main"]

_COMMANDS = {
    "compile": "irshap.cli.compile",
    "run": "irshap.cli.run",
    "cost": "irshap.cli.cost",
    "verify": "irshap.cli.verify",
    "print": "irshap.cli.ir",
    "opt": "irshap.cli.ir",
    "passes": "irshap.cli.listing",
    "methods": "irshap.cli.listing",
    "ops": "irshap.cli.listing",
    "demo": "irshap.cli.demo",
}


class _Commands(click.Group):
    """Imports a command's module when it is asked for; those import the compiler when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(import_module(_COMMANDS[cmd_name]), f"{cmd_name}_command")
        return found


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="irshap")
def cli() -> None:
    """Compiles an ONNX model into one ONNX file that returns its prediction and its attributions."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; errors are one message on standard error."""
    try:
        code = cli.main(args=None if args is None else list(args), prog_name="irshap", standalone_mode=False)
        # A closed pipe shows when buffers are written out, which should be in here.
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader has gone (`irshap print model.onnx | head`).  Python would complain again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except IrshapError as error:
        _complain(str(error))
        return error.exit_code
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 2
    return code if isinstance(code, int) else 0


def _complain(message: str) -> None:
    # Names in a message may come from a model, and must not reach the terminal as control sequences.
    safe = "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
    click.echo(f"error: {safe}", err=True)

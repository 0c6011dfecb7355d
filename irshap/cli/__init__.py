"""The command line: `irshap compile | references | run | cost | verify | print | opt | passes | ...`.

Exit codes: 0, 1 when a check failed (or irshap itself), 2 for bad input, 130 when interrupted.

This file imports nothing, so that Ctrl-C while the rest loads is an interrupt like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; errors are one message on standard error.

    Args:
        args: the words after `irshap`; None: those of the process.
    """
    try:
        from irshap.cli.commands import run

        return run(args)
    except KeyboardInterrupt:
        return 130

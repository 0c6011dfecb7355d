"""What is going on, for people who wait: which pass is running, how many rows are finished."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from threading import Timer
from typing import Any

from irshap.pipeline.base import Pass
from irshap.pipeline.instrument import Instrument

__all__ = ["PassProgress", "RowProgress"]


class PassProgress(Instrument):
    """Shows the running pass on standard error, once a second has gone by, and only on a terminal."""

    DELAY = 1.0

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._timer: Timer | None = None
        self._state = (0, 1, "starting")

    def __enter__(self) -> PassProgress:
        if sys.stderr.isatty():
            self._timer = Timer(self.DELAY, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._bar is not None:
            self._bar.stop()

    def begins(self, passes: Sequence[Pass]) -> None:
        self._state = (0, len(passes), "starting")

    def before(self, index: int, instance: Pass) -> None:
        self._state = (index, self._state[1], instance.name)
        self._update()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = bar.add_task("")
        bar.start()
        self._bar = bar
        self._update()

    def _update(self) -> None:
        index, total, name = self._state
        if self._bar is not None:
            self._bar.update(self._task, completed=index, total=total, description=name)


class RowProgress:
    """Shows on standard error how many rows are finished, how many a second, and the time that is left.

    Only on a terminal.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._first: int | None = None

    def __enter__(self) -> RowProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """As `explain_dataset` tells it."""
        if self._bar is None and sys.stderr.isatty():
            self._bar = _row_bar()
            self._task = self._bar.add_task("", total=total, completed=done)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)


def _row_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f} rows/s")

    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=60)
